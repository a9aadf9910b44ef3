"""Stored targets of the alignment are those that the encoder gives for a batch, mirrored clips included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evatok.data.clips import to_network
from evatok.models.encoders import load_encoder
from evatok.storage.shards import ShardStore
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES
from evatok.training.flextok_alignment import Teacher
from evatok.training.flextok_targets import StoredTargets


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    clips = np.random.default_rng(0).integers(0, 256, (4, 16, 64, 64, 3), dtype=np.uint8)
    return Teacher(load_encoder("results/checkpoints/videomae-toy"), VIDEOFLEXTOK_SIZES["toy"]).fit(clips, "cpu")


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 16, 64, 64, 3), dtype=np.uint8)


def test_a_mirrored_clip_has_the_targets_of_the_mirrored_pixels(teacher, clips, tmp_path):
    stored = StoredTargets.of(teacher, clips, mirrored=True, store=ShardStore(tmp_path), shard_length=2)
    rows, mirrored = np.array([0, 2, 2]), np.array([False, False, True])
    seen = clips[rows].copy()
    seen[2] = seen[2][:, :, ::-1]
    expected = teacher.targets(to_network(seen, "cpu"))
    found = stored.targets(rows, mirrored, "cpu")
    assert float(torch.cosine_similarity(found, expected, dim=-1).min()) > 0.999
    assert float(torch.cosine_similarity(found[1], expected[2], dim=-1).mean()) < 0.9


def test_a_second_training_reads_what_the_first_one_stored(teacher, clips, tmp_path, monkeypatch):
    store = ShardStore(tmp_path)
    first = StoredTargets.of(teacher, clips, mirrored=False, store=store, shard_length=2)
    monkeypatch.setattr(teacher, "raw", lambda _: pytest.fail("computed again"))
    again = StoredTargets.of(teacher, clips, mirrored=False, store=store, shard_length=2)
    assert np.array_equal(first.features[0], again.features[0])
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        StoredTargets.of(teacher, clips, mirrored=False, bf16=True, store=store, shard_length=2)
