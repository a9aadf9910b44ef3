"""Losses of blocks at full length, and what a store keeps of them."""

import numpy as np
import torch

from evatok.evaluation import full_length
from evatok.evaluation.full_length import full_length_losses
from evatok.storage.shards import ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer
from tests.factories import TINY, saved_tokenizer


def test_losses_are_those_of_each_block_under_the_longest_assignment(tokenizer, clips):
    pixels = (clips * 255).byte().permute(0, 2, 3, 4, 1).numpy()
    found = full_length_losses(tokenizer, pixels, batch=3)
    longest = tokenizer.config.levels[-1]
    real = torch.from_numpy(pixels).permute(0, 4, 1, 2, 3) / 255
    fake = tokenizer(real, torch.full((len(real), 3), longest)).clips.clamp(0, 1)
    expected = [
        (a - b).square().mean(dim=(1, 2, 3, 4)) for a, b in zip(real.chunk(3, 2), fake.chunk(3, 2), strict=True)
    ]
    assert np.allclose(found, torch.stack(expected, 1).detach().numpy(), atol=1e-6)


def test_losses_are_computed_once_per_tokenizer_and_pixels(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(256, size=(5, 12, 16, 16, 3), dtype=np.uint8)
    one, other = (
        AdaptiveTokenizer.load(saved_tokenizer(tmp_path / f"{seed}.safetensors", TINY, seed=seed)) for seed in (0, 1)
    )
    store, computed = ShardStore(tmp_path / "work"), []
    losses = full_length._losses

    def counted(tokenizer, clips, batch):
        computed.append(len(clips))
        return losses(tokenizer, clips, batch)

    monkeypatch.setattr(full_length, "_losses", counted)
    monkeypatch.setattr(full_length, "_CLIPS", 4)
    expected = full_length_losses(one, pixels)
    computed.clear()
    first, again = full_length_losses(one, pixels, store), full_length_losses(one, pixels, store)
    assert computed == [4, 1]
    assert np.allclose(first, expected, atol=1e-6)
    assert np.array_equal(first, again)
    assert not np.allclose(full_length_losses(other, pixels, store), first)
    assert full_length_losses(one, pixels[:4] + 1, store).shape == (4, 3)
    assert computed == [4, 1, 4, 1, 4]
