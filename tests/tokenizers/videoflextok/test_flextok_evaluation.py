"""VideoFlexTok under `evaluate`: dispatch by kind of checkpoint, fixed noise, cost, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from evatok.data import clips as clip_sets
from evatok.evaluation import protocols
from evatok.evaluation.flexible import Flexible, decoder_flops
from evatok.evaluation.flextok_quality import Measuring, quality, sharpness, token_use
from evatok.experiments import evaluate
from evatok.experiments.tracking import ConfigError
from evatok.storage import checkpoints, records
from evatok.tokenizers.videoflextok import FlexTokError
from evatok.tokenizers.videoflextok.flow_decoder import Condition

pytestmark = pytest.mark.usefixtures("colour_features")
COUNT = 5


@pytest.fixture
def run(tmp_path, moving_clips, flex, monkeypatch):
    """Runs `evaluate` on five clips of the tiny tokenizer's shape: (**changes) -> result and record."""
    base = protocols.get("larp-ucf101-reconstruction")
    own = {
        "name": "brief",
        "data": "films",
        "clips": COUNT,
        "frames": 12,
        "size": 32,
        "metrics": ("psnr", "l1", "rfvd"),
    }
    brief = replace(base, **own)
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", brief)
    facts = {"name": brief.data, "split": brief.split, "seed": brief.clip_seed, "protocol": brief.hash}
    clips = moving_clips(COUNT, frames=12, size=32)
    clip_sets.save(tmp_path / "clips", clips, pd.DataFrame({"source": ["made"] * COUNT}), facts)
    tokenizer, path = flex(), tmp_path / "flex.safetensors"
    config = tokenizer.config.to_dict()
    checkpoints.save(path, tokenizer, kind="videoflextok", config=config, facts={"stage": 1}, dtype=torch.float16)

    def measure(**changes):
        places = {key: str(tmp_path / key) for key in ("work", "records_folder", "per_clip")}
        usual = {"protocol": "brief", "checkpoint": str(path), "data": str(tmp_path / "clips"), "flow_steps": 2}
        found = evaluate.ex.run(config_updates={**places, **usual, "assignment": "uniform:2", "threads": 1, **changes})
        return found.result, records.read(tmp_path / "records_folder" / f"{found.result['record']}.json")

    return measure


def test_a_flexible_tokenizer_is_measured_by_its_kind_and_told_apart(run):
    result, record = run()
    model = record.model
    assert (model["system"], model["assignment"], model["row"]) == ("flexible tokenizer", "uniform", [2])
    assert (model["flow_steps"], model["flow_guidance"], model["noise_seed"]) == (2, 1.0, 0)
    assert model["facts"] == {"stage": 1}
    assert record.metrics["mean_tokens"].value == 6
    assert {"psnr", "l1", "rfvd", "motion_ratio", "motion_correlation", "codebook_usage"} <= set(record.metrics)
    others = {"flow_steps": 3}, {"seed": 1}, {"assignment": "uniform:4"}, {"assignment": "fixed:4,2,1"}
    for changes in others:
        other, _ = run(**changes)
        assert other["resumed"] == 0
        assert other["metrics"]["psnr"] != result["metrics"]["psnr"]
    again, _ = run()
    assert again["resumed"] == COUNT
    assert again["metrics"] == result["metrics"]


def test_no_batch_moves_a_sample(run, tmp_path):
    whole, parts = run(batch=5)[0], run(batch=2, work=str(tmp_path / "other"))[0]
    assert parts["metrics"]["psnr"] == pytest.approx(whole["metrics"]["psnr"], abs=1e-3)


def test_zero_tokens_are_the_control_without_information(run):
    _, record = run(assignment="uniform:0")
    assert record.model["row"] == [0]
    assert "psnr" in record.metrics
    assert "codebook_usage" not in record.metrics


def test_what_cannot_be_measured_ends_in_one_error(run, tmp_path):
    with pytest.raises(ConfigError, match="'router:x' is neither uniform:4 nor fixed"):
        run(assignment="router:x")
    with pytest.raises(FlexTokError, match="between 0 and 4, got"):
        run(assignment="uniform:5")
    with pytest.raises(ConfigError, match="config key flow_steps: 0 is not"):
        run(flow_steps=0)
    with pytest.raises(ConfigError, match="protocol embedded-reconstruction has 16 frames, 64 pixels"):
        run(protocol="embedded-reconstruction")


@pytest.mark.parametrize("drop", ["truncate", "mask"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_the_cost_of_a_step_is_what_torch_counts(flex, tokens, drop):
    tokenizer = flex(drop=drop)
    shown = tokens if drop == "truncate" else 4
    condition = Condition(torch.zeros(1, 3, shown, 16), torch.full((1, 3), tokens))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tokenizer.network.velocity(torch.zeros(1, 3, 4, 4, 16), torch.ones(1), condition)
    # The small rest are the noise level's own layers.
    assert decoder_flops(tokenizer, tokens) == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert decoder_flops(tokenizer, tokens) < counter.get_total_flops()


def test_guidance_doubles_the_cost(flex):
    plain, guided = (Flexible(flex(), [2], {}, guidance=g).identity["flops_per_step"] for g in (1.0, 2.0))
    assert guided == 2 * plain


def test_every_length_and_number_of_steps_is_measured_and_tokens_are_compared_with_others(flex, moving_clips):
    clips = clip_sets.ClipSet(moving_clips(4, frames=12, size=32), pd.DataFrame(), {"name": "made", "sha256": ""})
    tokenizer = flex()
    found = quality(tokenizer, clips, Measuring(steps=(1, 2), batch=2))
    assert found["psnr_codec"].n == 4
    assert {f"l1_k{tokens}_steps{steps}" for tokens in (0, 1, 2, 4) for steps in (1, 2)} <= set(found)
    alike = quality(tokenizer, clips, Measuring(steps=(1, 2), batch=4))
    assert alike["psnr_k4_steps2"].value == pytest.approx(found["psnr_k4_steps2"].value, abs=1e-3)
    use = token_use(tokenizer, clips, Measuring(batch=4))
    assert 1 <= use["codes_used"].value <= 4 * 12
    assert use["noise_loss_k4"].value != use["noise_loss_of_others_k4"].value


def test_sharpness_is_that_of_edges():
    flat, edge = torch.zeros(1, 3, 2, 4, 4), torch.zeros(1, 3, 2, 4, 4)
    edge[..., 2:] = 1.0
    assert sharpness(flat).tolist() == [0.0]
    assert sharpness(edge).tolist() == pytest.approx([1 / 6])
