"""Whatever takes a path takes a string as well, and the other way round."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evatok.data import clips, sets
from evatok.data.class_folders import scan_class_folders
from evatok.data.image_folder import read_frames_folder
from evatok.data.manifest import read_manifest
from evatok.evaluation import FolderClips, per_clip
from evatok.experiments import runs
from evatok.metrics.class_consistency import Classifier
from evatok.models.encoders import load_encoder
from evatok.pictures.gallery import save_frames, save_moving
from evatok.routing.trained_router import Router
from evatok.search import candidate_table
from evatok.storage import checkpoints, records
from evatok.storage.shards import ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer

SHIPPED = records.REPOSITORY / "results" / "checkpoints"


@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_shipped_loads(kind, monkeypatch):
    monkeypatch.chdir(records.REPOSITORY)  # as README writes it
    router = Router.load(kind("results/checkpoints/router-toy-pyramid-matched.safetensors"))
    proxy = sorted(SHIPPED.glob("proxy-toy*.safetensors"))[0]
    assert router.config.size == AdaptiveTokenizer.load(kind(proxy)).config.size
    assert Classifier.load(kind(SHIPPED / "classifier-toy.safetensors")).classes
    assert load_encoder(kind(SHIPPED / "videomae-toy")).depth == 6
    assert checkpoints.load(kind(proxy), "tokenizer").kind == "tokenizer"
    assert len(candidate_table.read(kind("results/tables/candidates/freedoom-validation.parquet")).clips)
    assert records.query(kind("results/records"), kind="table3")


@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_written_here_is_read_here(kind, tmp_path, moving_clips):
    pixels = moving_clips(3, size=16)
    labels = pd.DataFrame({"label": list("abc")})
    assert len(clips.save(kind(tmp_path / "set"), pixels, labels, {"name": "made"})) == 3
    assert len(clips.load(kind(tmp_path / "set"))) == 3
    assert len(sets.clip_set(kind(tmp_path / "set"), "train", 2, size=16, frames=16)) == 2
    save_moving(pixels[0], kind(tmp_path / "clip.webp"))
    save_frames(pixels, kind(tmp_path / "classes" / "one"), ["0", "1", "2"])
    assert read_frames_folder(kind(tmp_path / "classes" / "one" / "0"), frames=4, size=16).shape == (4, 16, 16, 3)
    assert len(scan_class_folders(kind(tmp_path / "classes"))) == 3
    (tmp_path / "list.csv").write_text("path\nclasses/one/0\n")
    assert len(read_manifest(kind(tmp_path / "list.csv"))) == 1
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "0.npy", pixels[0])
    assert FolderClips(kind(tmp_path / "arrays"), frames=16, size=16).names == ["0"]
    assert per_clip.write({"psnr": np.ones(3)}, kind(tmp_path / "values"), "psnr").exists()
    ShardStore(kind(tmp_path / "shards")).put({"made": "here"}, {"values": np.ones(3)})
    assert ShardStore(kind(tmp_path / "shards")).get({"made": "here"}) is not None
    assert runs.list_runs(kind(tmp_path / "runs")).empty
