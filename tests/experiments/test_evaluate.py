"""`evatok.experiments.evaluate` as a user runs it: what it measures, records, resumes and refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.assignments.reward import Scale
from evatok.data import clips as clip_sets
from evatok.evaluation import EvaluationError, per_clip, protocols
from evatok.evaluation.protocols import Protocol
from evatok.experiments import evaluate, evaluate_output
from evatok.experiments.tracking import ConfigError
from evatok.routing.networks import RouterConfig, build_router
from evatok.storage import checkpoints, records
from tests.factories import saved_tokenizer

FRAMES, SIZE, COUNT = 12, 16, 5

pytestmark = pytest.mark.usefixtures("colour_features")


@pytest.fixture
def brief(monkeypatch) -> Protocol:
    """Five clips of a user's own set, for the tiny tokenizer."""
    base = protocols.get("larp-ucf101-reconstruction")
    brief = dataclasses.replace(
        base, name="brief", data="films", clips=COUNT, frames=FRAMES, size=SIZE, metrics=("psnr", "l1", "rfvd")
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", brief)
    return brief


@pytest.fixture
def data(tmp_path, brief, moving_clips) -> str:
    """The folder of a set built under the protocol."""
    facts = {"name": brief.data, "split": brief.split, "seed": brief.clip_seed, "protocol": brief.hash}
    clips = moving_clips(COUNT, frames=FRAMES, size=SIZE)
    clip_sets.save(tmp_path / "clips", clips, pd.DataFrame({"source": ["made"] * COUNT}), facts)
    return str(tmp_path / "clips")


@pytest.fixture
def run(tmp_path, data, tokenizer):
    """Runs the experiment: (**changes) -> its result and its record."""
    checkpoint = saved_tokenizer(tmp_path / "tiny.safetensors", tokenizer)

    def measure(**changes: Any) -> tuple[dict[str, Any], records.Record]:
        places = {"work": "work", "records_folder": "records", "per_clip": "per_clip"}
        places = {key: str(tmp_path / folder) for key, folder in places.items()}
        usual = {"protocol": "brief", "checkpoint": checkpoint, "data": data, "assignment": "uniform:4"}
        found = evaluate.ex.run(config_updates={**places, **usual, "threads": 1, **changes})
        return found.result, records.read(tmp_path / "records" / f"{found.result['record']}.json")

    return measure


def test_a_checkpoint_under_a_protocol_leaves_one_record(run, brief, tmp_path, colour_features):
    result, record = run()
    assert record.kind == "evaluate"
    assert record.protocol["hash"] == brief.hash
    assert record.metrics.keys() >= {"psnr", "l1", "rfvd", "mean_tokens", "bits_per_pixel", "codebook_usage"}
    assert record.metrics["mean_tokens"].value == 12
    assert all(record.metrics[name].n == COUNT for name in ("psnr", "l1", "rfvd"))
    assert record.model["assignment"] == "uniform"
    assert record.model["networks"] == {"i3d": colour_features.weights_sha256}
    assert protocols.comparable(record)
    assert result["comparable"] is True
    assert len(list((tmp_path / "records").iterdir())) == 1
    per_clip = pd.read_csv(tmp_path / "runs" / "evaluate" / "1" / "per_clip.csv")
    assert per_clip["psnr"].mean() == pytest.approx(record.metrics["psnr"].value)


def test_what_was_measured_of_every_clip_lies_beside_the_record(run, tmp_path):
    run()
    measured, reference = sorted((tmp_path / "per_clip").iterdir())
    assert (measured.name[:9], reference.name[:10]) == ("per_clip-", "reference-")
    with np.load(measured) as kept, np.load(reference) as real:
        assert set(kept.files) == {"psnr", "l1", "tokens", "motion", per_clip.FEATURES}
        assert kept[per_clip.FEATURES].shape == real[per_clip.REAL].shape == (COUNT, 6)
        assert kept[per_clip.FEATURES].dtype == np.float16
        assert kept["tokens"].tolist() == [12] * COUNT
    run(assignment="uniform:8")
    assert len(list((tmp_path / "per_clip").iterdir())) == 3, "the real clips' features are there already"
    run(assignment="uniform:8", per_clip="")
    assert len(list((tmp_path / "per_clip").iterdir())) == 3


def test_a_record_names_its_files_where_they_lie_in_the_repository(run, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", tmp_path.resolve())
    one, other = run()[1], run(assignment="uniform:8")[1]
    assert one.artifacts.keys() == {per_clip.MEASURED, per_clip.REFERENCE}
    assert one.artifacts[per_clip.REFERENCE] == other.artifacts[per_clip.REFERENCE]
    for metric, tolerance in (("psnr", 1e-6), ("l1", 1e-6), ("motion_ratio", 1e-9), ("rfvd", 1e-2)):
        found = per_clip.paired(one, other, metric, tmp_path)
        expected = one.metrics[metric].value - other.metrics[metric].value
        assert found.value == pytest.approx(expected, abs=tolerance), metric
        assert found.low <= found.high


def test_a_run_of_the_same_takes_what_is_there(run):
    first, again = run()[0], run(batch=2)[0]
    assert (first["resumed"], again["resumed"]) == (0, COUNT)
    assert first["metrics"] == again["metrics"]
    assert first["record"] != again["record"], "another batch is another command"
    assert run()[0]["record"] == first["record"], "a finished command names its record"
    assert run(assignment="uniform:8")[0]["resumed"] == 0


def test_every_kind_of_assignment(run, tokenizer, tmp_path):
    shape = tokenizer.config
    config = RouterConfig(levels=shape.levels, frames=FRAMES, size=SIZE, patch=(4, 8, 8), width=16, layers=1, heads=2)
    point = {"metric": "l1", "w_q": 1.2, "scale": dataclasses.asdict(Scale(0.0, 1.0, 14.0, 4.0))}
    router = tmp_path / "router.safetensors"
    sha256 = checkpoints.save(
        router, build_router(config), kind="router", config=config.to_dict(), facts={"point": point}
    )
    _, record = run(assignment=f"router:{router}")
    assert record.model["router"] == sha256
    assert 6 <= record.metrics["mean_tokens"].value <= 24
    _, record = run(assignment="fixed:8,4,2")
    assert record.model["tokens_per_block"] == [8, 4, 2]
    drawn = [run(assignment="random", seed=seed)[1].model["histogram"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("wrong", ["uniform", "uniform:4,4", "fixed:8", "router:", "random:1", "best", "fixed:a,b"])
def test_an_assignment_of_no_known_form_is_refused(run, wrong):
    with pytest.raises(ConfigError, match=r"config key assignment: .* is not one of uniform:16, fixed:16,8,8,4"):
        run(assignment=wrong)


def test_an_assignment_the_tokenizer_lacks_is_refused(run):
    with pytest.raises(ConfigError, match=r"config key assignment: .*16 tokens is not one of the levels"):
        run(assignment="uniform:16")


def test_a_checkpoint_for_other_clips_is_refused(run, brief, monkeypatch):
    other = dataclasses.replace(brief, frames=16)
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", other)
    with pytest.raises(ConfigError, match="codes clips of 12 frames, 16 pixels; protocol brief has 16 frames"):
        run()


def test_a_limited_run_stands_in_no_table(run):
    result, record = run(limit=3, metrics="l1")
    assert record.metrics["l1"].n == result["clips"] == 3
    assert record.protocol["limit"] == 3
    assert not protocols.comparable(record)
    assert result["comparable"] is False


def test_the_identity_and_the_ceiling_of_its_psnr(run):
    result, record = run(checkpoint="identity")
    assert record.metrics["l1"].value == 0
    assert record.metrics["rfvd"].value == pytest.approx(0, abs=1e-6)
    assert record.metrics["psnr"].value == 100
    assert record.model["psnr_ceiling"] == result["psnr_ceiling"] == {"dB": 100, "clips": COUNT}
    assert run(checkpoint="identity", metrics="psnr")[1].metrics["psnr"].value == 100


def test_folders_on_either_side(run, data, tmp_path):
    (tmp_path / "fake").mkdir()
    real = np.load(Path(data) / "clips.npy")
    np.save(tmp_path / "fake" / "all.npy", real // 2)
    _, against_set = run(fake=str(tmp_path / "fake"))
    assert protocols.comparable(against_set)
    (tmp_path / "real").mkdir()
    np.save(tmp_path / "real" / "all.npy", real)
    _, against_folder = run(fake=str(tmp_path / "fake"), real=str(tmp_path / "real"))
    assert not protocols.comparable(against_folder)
    _, against_built = run(fake=str(tmp_path / "fake"), real=data)
    assert protocols.comparable(against_built)
    for record in (against_folder, against_built):
        assert record.metrics["rfvd"].value == pytest.approx(against_set.metrics["rfvd"].value)
    with pytest.raises(ConfigError, match="a folder has only its own"):
        run(fake=str(tmp_path / "fake"), choices=2)


def test_choices_of_clips_give_rfvd_a_spread(run, tmp_path, moving_clips):
    (tmp_path / "films" / "made").mkdir(parents=True)
    for number, frames in enumerate(moving_clips(COUNT, frames=24, size=SIZE)):
        with av.open(str(tmp_path / "films" / "made" / f"{number}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=20)
            stream.width = stream.height = SIZE
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    _, record = run(data=str(tmp_path / "films"), choices=3)
    assert record.metrics["rfvd"].spread > 0
    _, single = run(data=str(tmp_path / "films"))
    assert single.metrics["rfvd"].value == pytest.approx(record.metrics["rfvd"].value)
    assert single.metrics["rfvd"].spread is None


def test_wrong_names_say_which_are_right(run):
    with pytest.raises(ConfigError, match=r"config key protocol: 'larp' is not one of .*embedded-.*brief"):
        run(protocol="larp")
    with pytest.raises(EvaluationError, match="does not define 'fvd': it has psnr, l1, rfvd"):
        run(metrics="psnr,fvd")


def test_worst_and_median_clips_are_shown_beside_their_reconstructions(run, tmp_path):
    folder = tmp_path / "shown"
    result, _ = run(show=4, output=str(folder), fps=4.0)
    assert sorted(path.name for path in folder.iterdir()) == ["clips.webp", "sheet.png"]
    assert result["shown"] == {"sheet": str(folder / "sheet.png"), "moving": str(folder / "clips.webp")}
    with Image.open(folder / "clips.webp") as moving:
        moving.load()
        assert (moving.n_frames, moving.info["duration"]) == (FRAMES, 250)


def test_what_is_shown_is_what_was_measured(run, tmp_path, monkeypatch):
    """The worst clip by PSNR first, and the reconstruction whose PSNR the record counts."""
    seen = {}
    monkeypatch.setattr(
        evaluate_output.gallery,
        "write_reconstructions",
        lambda folder, real, made, titles, notes, tokens, **told: (
            seen.update(real=real, made=made["reconstructed"], notes=notes["reconstructed"], titles=titles) or {}
        ),
    )
    result, _ = run(show=COUNT, assignment="random", output=str(tmp_path / "shown"))
    errors = ((seen["real"].astype(float) - seen["made"]) ** 2).mean((1, 2, 3, 4)) / 255**2
    psnr = -10 * np.log10(errors)
    assert [f"psnr {value:.2f}" for value in psnr] == [note.partition(",")[0] for note in seen["notes"]]
    assert psnr.mean() == pytest.approx(result["metrics"]["psnr"], abs=0.01)
    assert np.argmin(psnr) == 0
    assert [title.partition("(")[2] for title in seen["titles"]] == ["worst)"] * 3 + ["median)"] * 2


def test_clips_are_not_shown_without_a_metric_that_orders_them(run):
    with pytest.raises(ConfigError, match="config key show: worst and median clips are told by a metric that has"):
        run(show=2, metrics="rfvd")
