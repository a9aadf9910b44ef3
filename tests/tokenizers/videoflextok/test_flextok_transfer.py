"""Tokens with a borrowed first frame: what is measured, and what a table claims of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.data.clips import to_network
from evatok.experiments import videoflextok_transfer
from evatok.experiments.tracking import ConfigError
from evatok.reporting.claims import FAILS, HOLDS
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions.videoflextok import figure4
from tests.factories import saved_videoflextok


@pytest.fixture
def transfer(tmp_path, moving_clips, runs):
    """Measures an untrained tokenizer on three gratings: (**changes) -> the record."""
    path = saved_videoflextok(tmp_path / "flex.safetensors")
    facts = {"name": "gratings", "seed": 0}
    clip_sets.save(
        tmp_path / "clips", moving_clips(3, frames=12, size=32), pd.DataFrame({"source": ["made"] * 3}), facts
    )

    def run(**changes) -> records.Record:
        usual = {"tokenizer": path, "data": str(tmp_path / "clips"), "clips": 3, "kept": [1, 2], "flow_steps": 1}
        places = {"records_folder": str(tmp_path / "records"), "output": "", "threads": 1, "batch": 2, "bf16": False}
        made = videoflextok_transfer.ex.run(config_updates={**usual, **places, **changes})
        return records.read(tmp_path / "records" / f"{made.result['record']}.json")

    return run


def test_samples_are_compared_with_the_clips_of_tokens_and_of_frame(transfer, tmp_path):
    record = transfer(output=str(tmp_path / "shown"))
    names = {f"{metric}_k{k}_borrowed_{of}" for metric in ("l1",) for k in (1, 2) for of in ("tokens", "frame")}
    assert names | {"l1_k1_own_tokens", "l1_k2_own_tokens"} <= set(record.metrics)
    assert not any(name.endswith("own_frame") for name in record.metrics)
    assert all(metric.n == 3 for metric in record.metrics.values())
    assert (tmp_path / "shown" / "k1" / "sheet.png").exists()
    with pytest.raises(ConfigError, match="two are needed"):
        transfer(clips=1)


def test_the_borrowed_frame_is_in_the_sample(flex, moving_clips):
    """What the codec keeps of the given frame comes out again, whatever the tokens say."""
    tokenizer = flex(decoder_mask="full")
    pixels = moving_clips(2, frames=12, size=32)
    clips = clip_sets.ClipSet(pixels, pd.DataFrame({"source": ["made"] * 2}), {"name": "gratings"}, Path())
    config = {"batch": 2, "device": "cpu", "bf16": False, "flow_steps": 2, "flow_guidance": 1.0, "noise_seed": 0}
    made = to_network(videoflextok_transfer.drawn(tokenizer, clips, config, 1, own=False))
    given = to_network(np.roll(pixels, -1, axis=0))[:, :, : tokenizer.config.first_frames]
    kept = tokenizer.codec.decode(tokenizer.codec.encode(given), given.shape[2]).clamp(0, 1)
    assert torch.allclose(made[:, :, : given.shape[2]], kept, atol=1 / 255)


def test_claims_follow_the_figures_and_their_intervals(tmp_path):
    values = {"motion_correlation_k1_borrowed_tokens": 0.5, "motion_correlation_k1_borrowed_frame": 0.1}
    values |= {"l1_k1_borrowed_tokens": 0.1, "l1_k1_borrowed_frame": 0.2, "l1_k1_own_tokens": 0.05}
    record = records.new_record(
        kind="videoflextok_transfer",
        status="toy",
        protocol={"clips": 64},
        model={},
        metrics={name: Metric(value, "", 64, "lower", 0.02) for name, value in values.items()},
        config={},
        environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
    )
    records.write(record, tmp_path / "records")
    assert figure4.main(["--results", str(tmp_path)]) == 0
    signs = pd.read_csv(tmp_path / "tables" / "videoflextok_figure4_signs.csv").set_index("name")
    assert signs.verdict["1 token per latent frame: changes follow the tokens' clip"] == HOLDS
    assert signs.verdict["1 token per latent frame: pixels follow the first frame's clip"] == FAILS
