"""All stages in slices of limited time: chained slices end where one long run does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from evatok.data import clips as clip_sets
from evatok.experiments import all_stages
from evatok.routing.networks import ROUTER_SIZES
from evatok.routing.trained_router import Router
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.training import masked_video
from tests.factories import configured

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs")]

NAMES = ["encoder", "proxy", "scores-train", "scores-validation", "router", "final-uniform", "final-router"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder of all tests of this file: what one of them has trained, the others need not train again."""
    return tmp_path_factory.mktemp("all_stages")


@pytest.fixture
def stages(shared, smaller, moving_clips, monkeypatch):
    """Runs all stages with tiny networks: (name, **changes) -> the result."""
    if not (shared / "clips").exists():
        labels = pd.DataFrame({"source": ["made"] * 12})
        clip_sets.save(shared / "clips", moving_clips(12), labels, {"name": "gratings", "seed": 0})
    monkeypatch.setitem(TOKENIZER_SIZES, "toy", dataclasses.replace(smaller, decoder_layers=2))
    router = dataclasses.replace(ROUTER_SIZES["toy"], levels=smaller.levels, width=16, layers=1, heads=2)
    monkeypatch.setitem(ROUTER_SIZES, "toy", router)
    shape = {"patch_size": 16, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 24}
    decoder = {"decoder_hidden_size": 12, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 24}
    encoder = {**masked_video.VIDEOMAE_SIZES["toy"], **shape, **decoder}
    monkeypatch.setitem(masked_video.VIDEOMAE_SIZES, "toy", encoder)

    def run(name: str = "one", **changes):
        places = {"folder": str(shared / name), "records_folder": str(shared / name / "records")}
        steps = dict.fromkeys(("encoder_steps", "proxy_steps", "router_steps", "final_steps"), 8)
        clips = {"train_clips": 10, "scored_clips": 8, "validation_clips": 4}
        periods = {"batch": 4, "router_batch": 4, "threads": 1}
        updates = {"data": str(shared / "clips"), **places, **steps, **clips, **periods, **changes}
        return all_stages.ex.run(named_configs=("toy",), config_updates=updates).result

    return run


@pytest.fixture
def whole(stages, shared) -> Path:
    """The folder of all stages, run at once by the first test that asks for it."""
    if not (shared / "whole").exists():
        result = stages("whole")
        assert result["complete"] is True
        assert list(result["stages"]) == NAMES
        assert {"step_seconds", "tokens_per_second"} <= result["stages"]["proxy"]["pace"].keys()
    return shared / "whole"


def test_every_stage_leaves_its_outcome_and_is_not_run_again(stages, whole):
    folder = whole
    router = Router.load(folder / "router.safetensors")
    for rule in ("uniform", "router"):
        tokenizer = AdaptiveTokenizer.load(folder / f"final-{rule}.safetensors")
        checkpoint = tokenizer.checkpoint
        assert tokenizer.config == TOKENIZER_SIZES["toy"]
        assert checkpoint.facts["assignment"] == rule
    assert checkpoint.parents["router"] == router.checkpoint.sha256
    made = len(records.query(folder / "records"))
    again = stages("whole")
    assert again["complete"] is True
    assert all(stage["earlier"] for stage in again["stages"].values())
    assert len(records.query(folder / "records")) == made


def test_chained_slices_end_where_one_long_run_does(stages, whole, shared):
    slices = []
    while not slices or not slices[-1]["complete"]:
        slices.append(stages("sliced", minutes=1e-4))
        assert len(slices) < 40
    assert len(slices) > 3
    assert [part["next"] for part in slices[:-1]] == sorted((part["next"] for part in slices[:-1]), key=NAMES.index)
    for name, kind in (("proxy", "tokenizer"), ("router", "router"), ("final-router", "tokenizer")):
        hashes = [sha(folder / f"{name}.safetensors", kind) for folder in (whole, shared / "sliced")]
        assert hashes[0] == hashes[1]


@pytest.mark.parametrize("size", ["toy", "small", "paper"])
def test_a_size_means_what_it_means_in_each_stage(size):
    """What one stage hands to the next is given; how long a stage trains, and on how much, is its own."""
    named = () if size == "paper" else (size,)
    for job in all_stages.jobs(configured(all_stages.ex, *named, size=size)):
        own = configured(job.experiment, size)
        for key in ("steps", "batch", "train_clips", "learning_rate", "warmup", "bf16"):
            assert job.settings.get(key, own.get(key)) == own.get(key), (job.name, key)


def test_a_quick_look_is_shorter_than_the_stages_themselves():
    for job in all_stages.jobs(configured(all_stages.ex, "toy", "quick")):
        own = configured(job.experiment, "toy")
        assert job.settings.get("steps", 0) <= own.get("steps", 0)


def sha(path: Path, kind: str) -> str:
    return checkpoints.load(path, kind).sha256


def test_a_kill_between_an_outcome_and_its_record_is_made_good(stages, whole):
    folder, kinds = whole / "records", ("stage1_proxy", "stage2_curation")

    def made() -> set[tuple[str, ...]]:
        found = [record for kind in kinds for record in records.query(folder, kind)]
        return {(record.kind, record.model.get("sha256"), record.model.get("table")) for record in found}

    before = made()
    for kind in kinds:
        for path in folder.glob(f"{kind}-*"):
            path.unlink()
    again = stages("whole")["stages"]
    assert [name for name in NAMES if "earlier" not in again[name]] == ["proxy", "scores-train", "scores-validation"]
    assert made() == before
