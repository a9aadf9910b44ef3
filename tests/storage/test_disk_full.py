"""A full disk is one line that says which file, which disk and how much is missing, for memory maps too."""

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips
from evatok.errors import is_no_room, line_of
from evatok.storage import files
from evatok.storage.environment import REPOSITORY
from evatok.storage.files import NoRoomError, disk_of, replacing, reserve, told_bytes

Usage = namedtuple("Usage", "total used free")

# Writes under a limit of file sizes, which ends a write as a full disk does, and says the line of each writer.
LIMITED = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from evatok.errors import line_of
import numpy as np, torch
from evatok.storage.files import replacing, reserve

def state(path):
    with replacing(path) as partial:
        torch.save({"w": torch.zeros(100_000)}, partial)

def tensors(path):
    from safetensors.torch import save_file
    with replacing(path) as partial:
        save_file({"w": torch.zeros(100_000)}, partial)

def parquet(path):
    import pyarrow as pa, pyarrow.parquet as pq
    with replacing(path) as partial:
        pq.write_table(pa.table({"w": np.random.default_rng(0).random(100_000)}), partial)

def text(path):
    with replacing(path) as partial:
        partial.write_text("x" * 100_000)

def memory_map(path):
    with replacing(path) as partial:
        partial.touch()
        reserve(partial, 100_000)

for folder in map(Path, sys.argv[1:]):
    try:
        globals()[folder.name](folder / "file")
        print("written")
    except Exception as error:
        print(line_of(error))
"""
WRITERS = ["state", "tensors", "parquet", "text", "memory_map"]


@pytest.fixture(scope="module")
def limited(tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """Each writer's folder, and the line that its write ended with: all in one process, which imports PyTorch once."""
    folders = [tmp_path_factory.mktemp("full", numbered=True) / writer for writer in WRITERS]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", LIMITED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(WRITERS, zip(folders, done.stdout.splitlines(), strict=True), strict=True))


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_library_writes_the_line_names_file_and_disk(limited, writer):
    folder, line = limited[writer]
    assert line.startswith(f"{folder / 'file'}: ")
    assert f"the disk at {disk_of(folder)} has" in line
    assert "free some space, or give another path" in line
    assert not list(folder.iterdir()), "nothing half written stays"


@pytest.fixture
def full(monkeypatch):
    """A disk with 1 kB left."""
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))


def test_what_is_known_not_to_fit_is_not_begun(tmp_path, full):
    path = tmp_path / "clips.npy"
    with pytest.raises(NoRoomError) as found, replacing(path, size=251_000):
        pytest.fail("it was begun")
    line = line_of(found.value)
    assert "has 1 kB left, the file needs 251 kB, 250 kB are missing" in line
    assert not list(tmp_path.iterdir())


def test_clip_sets_states_and_checkpoints_know_their_size(tmp_path, full, tokenizer):
    from evatok.storage import checkpoints
    from evatok.training.gradients import Gradients
    from evatok.training.loop import _Trained
    from evatok.training.recipe import Recipe

    with pytest.raises(NoRoomError, match=r"clips\.npy: .* missing"):
        clips.save(tmp_path, np.zeros((1, 4, 16, 16, 3), np.uint8), pd.DataFrame({"a": [0]}), {"name": "x"})
    gradients = Gradients(tokenizer, lambda *_: None, Recipe(steps=1, learning_rate=0.1, final_learning_rate=0.1))
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    trained = _Trained(tokenizer, tokenizer, optimiser, gradients, None)
    with pytest.raises(NoRoomError, match=r"state\.pt: .* missing"):
        trained.save(tmp_path / "state.pt", 1, 1.0)
    with pytest.raises(NoRoomError, match=r"w\.safetensors: .* missing"):
        checkpoints.save(tmp_path / "w.safetensors", tokenizer, kind="tokenizer", config={})


def test_reserved_space_is_there_and_keeps_what_was_written(tmp_path, monkeypatch):
    for case in ("system", "by hand"):
        path = tmp_path / case
        path.write_bytes(b"head")
        if case == "by hand":
            monkeypatch.delattr(files.os, "posix_fallocate")
            monkeypatch.setattr(files, "_PIECE", 1000)
        reserve(path, 10_500)
        held = path.read_bytes()
        assert held[:4] == b"head"
        assert len(held) == 10_500
        assert path.stat().st_blocks * 512 >= 10_500


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(json.JSONDecodeError), replacing(tmp_path / "file"):
        json.loads("{")
    assert not is_no_room(OSError(13, "Permission denied"))


def test_bytes_are_told_in_threes():
    assert [told_bytes(n) for n in (7, 1500, 2_340_000, 5e9, 7e15)] == ["7 B", "1.5 kB", "2.34 MB", "5 GB", "7e+03 TB"]
