"""What would take hours, or all memory, is refused before it is begun; damaged files are one line each."""

import dataclasses
import json
import os
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from evatok.data import decoding, probe, reels, video
from evatok.data.clips import ClipSetError
from evatok.data.sets import source
from evatok.errors import EvatokError, line_of
from evatok.evaluation import protocols
from evatok.evaluation.protocols import ProtocolError
from evatok.experiments.runs import list_runs
from evatok.experiments.setting import claim_folder
from evatok.experiments.tracking import ConfigError
from evatok.search import candidate_table
from evatok.storage import checkpoints, files
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import curve, loop

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"count": 10**7}, "a set has at most 1000000"),
        ({"count": 32, "frames": 10**7}, "the reels made at once take .* this machine has"),
        ({"count": 32, "size": 10**5}, "the reels made at once take"),
        ({"count": 10**6}, r"making them takes 393 GB, the disk at .* has 10 GB left, 383 GB are missing"),
    ],
)
def test_sets_that_cannot_be_held_are_refused_before_a_game_starts(tmp_path, monkeypatch, asked, complaint):
    made = dataclasses.replace(source("freedoom"), reel=lambda *_: pytest.fail("a reel was made"))
    monkeypatch.setattr(reels.shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**10))
    count = asked.pop("count")
    with pytest.raises(ClipSetError, match=complaint):
        reels.build(made, "train", count, cache=tmp_path, **asked)
    assert not list(tmp_path.iterdir())


def test_a_limit_beyond_the_protocol_makes_no_clip():
    with pytest.raises(ProtocolError, match="limit 100000 exceeds the 320 clips that protocol embedded-reconstruction"):
        protocols.clips_of(protocols.get("embedded-reconstruction"), limit=100_000)


@pytest.mark.parametrize("key", ["encoder_layers", "decoder_width", "frames", "size", "codebook_size"])
def test_a_header_that_asks_for_more_than_its_file_holds_is_refused_at_once(tokenizer, tmp_path, key):
    path = tmp_path / "odd.safetensors"
    checkpoints.save(path, tokenizer, kind="tokenizer", config={**tokenizer.config.to_dict(), key: 10**7})
    with pytest.raises(checkpoints.CheckpointError, match=f"{path}: its header says {key} 10000000"):
        AdaptiveTokenizer.load(path)


@pytest.mark.parametrize("value", [-1, 0, "many", None, [], {"a": 1}, 2.5])
@pytest.mark.parametrize("key", ["encoder_heads", "levels", "patch", "quantiser"])
def test_a_header_of_odd_values_names_its_file(tokenizer, tmp_path, key, value):
    path = tmp_path / "odd.safetensors"
    checkpoints.save(path, tokenizer, kind="tokenizer", config={**tokenizer.config.to_dict(), key: value})
    with pytest.raises(checkpoints.CheckpointError, match=r"odd\.safetensors: |another size"):
        AdaptiveTokenizer.load(path)


NO_CLAIMS = [b"", b"{", b"[]", b'{"config": 3}', b'{"config": {}, "inputs": "x", "run": 3}', b"\xff\xfe"]


@pytest.mark.parametrize("content", NO_CLAIMS)
def test_a_damaged_claim_is_one_line(tmp_path, content):
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"training\.json: damaged .* delete the folder to train from scratch"):
        claim_folder(tmp_path, {"steps": 1}, "x", None)


@pytest.mark.parametrize("content", ["", "{", "3\n", '{"loss": 1}\n', '{"step": "x"}\n', '{"step": 1, "loss": null}\n'])
def test_a_damaged_curve_is_one_line_and_a_resumed_training_mends_it(tmp_path, content):
    path = tmp_path / "curve.jsonl"
    path.write_text(content)
    with pytest.raises(loop.TrainingError, match=r"curve\.jsonl: not a complete curve"):
        loop.read_curve(tmp_path)
    path.write_text('{"step": 1, "loss": 0.5}\n' + content)
    curve.drop_lines_after(path, 1)
    assert loop.read_curve(tmp_path) == [{"step": 1, "loss": 0.5}]
    with pytest.raises(loop.TrainingError, match="its lines after step 1 of 5 are missing or damaged; delete it"):
        curve.drop_lines_after(path, 5)


def test_a_damaged_state_is_one_line(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 half")
    for ask in (loop.steps_done, loop.seconds_spent):
        with pytest.raises(loop.TrainingError, match=r"state\.pt: cannot resume"):
            ask(tmp_path)


ODD_RUNS = ["[]", "3", "null", '{"experiment": {"name": "x"}, "status": "RUNNING", "meta": {"options": null}}']
ODD_RUNS += ['{"experiment": {"name": "x"}, "status": "RUNNING", "meta": {"options": 3}, "start_time": "soon"}']
ODD_RUNS += ['{"experiment": {"name": "x"}, "status": 5, "meta": {}, "start_time": 7}', "[" * 100_000]


@pytest.mark.parametrize("content", ODD_RUNS)
def test_one_odd_run_does_not_lose_the_listing(tmp_path, content):
    good = {"experiment": {"name": "good"}, "status": "COMPLETED", "meta": {}, "start_time": "2026-01-01T00:00:00"}
    for number, text in enumerate((json.dumps(good), content)):
        (tmp_path / "x" / str(number)).mkdir(parents=True)
        (tmp_path / "x" / str(number) / "run.json").write_text(text)
    os.mkfifo(tmp_path / "x" / "pipe")
    (tmp_path / "x" / "2").mkdir()
    os.mkfifo(tmp_path / "x" / "2" / "run.json")
    listing = list_runs(tmp_path)
    assert sorted(listing["status"]) == ["COMPLETED", "UNREADABLE", "UNREADABLE"]


def test_a_strip_is_cut_before_it_is_resized_and_stays_small(tmp_path):
    strip = np.zeros((1, 60_000, 3), np.uint8)
    strip[:, 29_990:30_010] = 200
    square = decoding.square(strip, 32)
    assert square.shape == (32, 32, 3)
    assert (square == 200).all()
    with pytest.raises(ProtocolError, match="60000: one side is more than 16 times the other"):
        protocols.clips.square(strip, 32, "bilinear-antialias")


def test_huge_frames_are_refused_by_their_header(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "MOST_PIXELS", 100)
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(probe.VideoError, match="frames of 20 x 10 pixels exceed the limit of 100 pixels"):
        probe.probe(tmp_path / "x.gif")


def test_pipes_are_waited_for_by_no_reader(tmp_path):
    from evatok.data.manifest import read_manifest
    from evatok.evaluation.folders import FolderClips

    pipe = tmp_path / "0.npy"
    os.mkfifo(pipe)
    for read in (
        candidate_table.read,
        read_manifest,
        lambda path: checkpoints.load(path, "tokenizer"),
        lambda path: FolderClips(path.parent, frames=2, size=8),
        video.read_clip,
    ):
        with pytest.raises(EvatokError) as found:
            read(pipe)
        assert str(tmp_path) in line_of(found.value)


def test_memory_is_the_machines_or_less():
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < files.memory_bytes() <= pages
