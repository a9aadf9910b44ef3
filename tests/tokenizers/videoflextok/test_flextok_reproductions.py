"""Tables and figures of VideoFlexTok from records: which records make a row, what is claimed, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evatok.evaluation import protocols
from evatok.pictures import stored
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions.videoflextok import (
    controls,
    figure2,
    figure9,
    figure10,
    figure12,
    long,
    stage2,
    table2,
    table3,
    table8,
    tokens,
)
from tests.factories import gratings


@pytest.fixture
def results(tmp_path) -> Path:
    """An empty folder of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def measured(results) -> Callable[..., records.Record]:
    """Writes an `evaluate` record: (values, facts, **model) -> the record."""

    def write(
        values: dict[str, float],
        facts: dict[str, Any] | None = None,
        protocol: str = "embedded-reconstruction",
        **model: Any,
    ) -> records.Record:
        told = protocols.get(protocol)
        usual = {"size": "toy", "stage": 1, "steps": 100, "noise_mean": 1.0, "seed": 0, "form": "flexible"}
        usual |= {"decoder_mask": "causal", "alignment": True, "kept": "powers"}
        flexible = {
            "system": "flexible tokenizer",
            "sha256": "a" * 64,
            "parents": {"train_clips": "b" * 64},
            "facts": {**usual, **(facts or {})},
            "assignment": "uniform",
            "row": [16],
            "most_tokens": 16,
            "flow_steps": 20,
            "flow_guidance": 1.0,
            "flops_per_step": 1000,
        }
        directions = {"psnr": "higher", "feature_agreement": "higher"}
        metrics = {name: Metric(v, "", 320, directions.get(name, "lower"), 0.01) for name, v in values.items()}
        record = records.new_record(
            kind="evaluate",
            status="toy",
            protocol={**told.to_record({}, 320, None), "measured_clips": 320, "deviations": [], "comparable": True},
            model={**flexible, **model},
            metrics=metrics,
            config={"checkpoint": "results/checkpoints/flex.safetensors"},
            environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
        )
        records.write(record, results / "records")
        return record

    return write


def csv(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / "tables" / f"videoflextok_{name}.csv")


@pytest.mark.parametrize(
    "script", [table2, table3, stage2, table8, controls, figure2, figure9, figure10, figure12, long]
)
def test_without_records_a_script_says_which_commands_make_them(script, results, capsys):
    assert script.main(["--results", str(results)]) == 0
    assert "python " in capsys.readouterr().out.partition("What would fill the empty rows:")[2]


def test_table_2_takes_the_form_all_tokens_and_equal_trainings_into_account(measured, results, capsys):
    flat = measured({"psnr": 20.0, "l1": 0.05, "rfvd": 90.0}, {"form": "flat"})
    registers = measured({"psnr": 19.0, "l1": 0.06, "rfvd": 120.0})
    measured({"psnr": 30.0, "l1": 0.01, "rfvd": 1.0}, row=[4])
    measured({"psnr": 30.0, "l1": 0.01, "rfvd": 1.0}, flow_guidance=2.0)
    measured({"psnr": 30.0, "l1": 0.01, "rfvd": 1.0}, {"steps": 999})
    assert table2.main(["--results", str(results)]) == 0
    frame = csv(results, "table2").set_index(["row", "metric"])
    assert (frame.ours["flat 1D", "rfvd"], frame.record["flat 1D", "rfvd"]) == (90.0, flat.id)
    assert (frame.ours["2D", "rfvd"], frame.record["2D", "rfvd"]) == (120.0, registers.id)
    assert frame.paper["2D", "gfvd"] == 287.6
    signs = csv(results, "table2_signs").set_index("name")
    assert signs.verdict["flat 1D better than 2D, rFVD"] == HOLDS
    told = capsys.readouterr().out
    assert "form=flat work=results/work/videoflextok-toy-stage1-flat" in told
    assert "assignment=uniform:16 flow_steps=1" in told


def test_nested_dropout_is_judged_at_few_tokens_and_at_all(measured, results):
    for row, nested, plain in ((1, 20.0, 15.0), (4, 21.0, 20.0), (16, 22.0, 24.0)):
        for kept, psnr in (("powers", nested), ("all", plain)):
            measured({"psnr": psnr, "l1": 0.05, "rfvd": 500 - 10 * psnr}, {"kept": kept}, row=[row])
    measured({"psnr": 25.0, "l1": 0.04, "rfvd": 200.0}, {"form": "grid"})
    assert controls.main(["--results", str(results)]) == 0
    verdicts = csv(results, "controls_signs").set_index("name").verdict
    assert list(verdicts) == [HOLDS] * 4 + [FAILS] * 2
    table = csv(results, "controls").set_index(["row", "metric"]).ours
    assert [table[f"not nested, {told}", "psnr"] for told in ("1 token", "4 tokens", "all tokens")] == [15, 20, 24]
    assert table["3D grid", "psnr"] == 25


def test_seeds_of_a_row_become_a_mean(measured, results):
    for seed, value in enumerate((10.0, 12.0, 14.0)):
        for mask, more in (("full", 0.0), ("causal", 50.0)):
            facts = {"stage": 2, "decoder_mask": mask, "seed": seed}
            measured({"psnr": 20.0, "l1": 0.05, "rfvd": value + more}, facts)
    assert stage2.main(["--results", str(results)]) == 0
    frame = csv(results, "stage2").set_index(["row", "metric"])
    assert (frame.ours["full, all tokens", "rfvd"], frame.n["full, all tokens", "rfvd"]) == (12.0, 3)
    signs = csv(results, "stage2_signs").set_index("name")
    assert signs.verdict["full, all tokens better than causal, all tokens, rFVD"] == HOLDS


def test_table_8_compares_with_the_evatok_row_of_the_nearest_bits(measured, results):
    values = {"psnr": 20.0, "l1": 0.07, "rfvd": 80.0, "bits_per_pixel": 0.016}
    measured(values, {"stage": 2, "decoder_mask": "full"})
    for length, bits in ((16, 0.014), (64, 0.05)):
        other = {"psnr": 23.0 + length / 64, "l1": 0.05, "rfvd": 150.0, "bits_per_pixel": bits}
        measured(other, {"assignment": "random"}, system="adaptive tokenizer", row=[length])
    assert table8.main(["--results", str(results)]) == 0
    frame = csv(results, "table8").set_index(["row", "metric"])
    assert frame.ours["EVATok, uniform", "psnr"] == pytest.approx(23.25)
    assert set(csv(results, "table8_signs").verdict) == {HOLDS}


def test_table_8_says_which_rival_this_is_and_how_equal_the_bits_are(measured, results):
    measured({"psnr": 20.0, "rfvd": 80.0, "bits_per_pixel": 0.0125}, {"stage": 2, "decoder_mask": "full"})
    other = {"psnr": 23.0, "rfvd": 150.0, "bits_per_pixel": 0.014}
    measured(other, {"assignment": "random"}, system="adaptive tokenizer", row=[32])
    assert table8.main(["--results", str(results)]) == 0
    text = (results / "tables" / "videoflextok_table8.md").read_text()
    assert "`flex.safetensors` at 32 tokens per block, has the nearest bits per pixel (+12 %; within 25 %" in text
    assert "after 100 steps of stage 2" in text


def test_a_caption_tells_both_meanings_of_a_spread(measured, results):
    for seed in range(2):
        measured({"psnr": 20.0 + seed, "l1": 0.05, "rfvd": 90.0}, {"form": "flat", "seed": seed})
    measured({"psnr": 19.0, "l1": 0.06, "rfvd": 120.0})
    assert table2.main(["--results", str(results)]) == 0
    text = (results / "tables" / "videoflextok_table2.md").read_text()
    assert "± the standard deviation over them; of one seed after ± half the 95 % interval over clips" in text


def test_a_rival_of_many_more_bits_stands_in_no_table_of_equal_bits(measured, results, capsys):
    measured({"psnr": 20.0, "rfvd": 80.0, "bits_per_pixel": 0.016}, {"stage": 2, "decoder_mask": "full"})
    other = {"psnr": 23.0, "rfvd": 150.0, "bits_per_pixel": 0.05}
    measured(other, {"assignment": "random"}, system="adaptive tokenizer", row=[64])
    assert table8.main(["--results", str(results)]) == 0
    assert "assignment=uniform:16" in capsys.readouterr().out
    assert set(csv(results, "table8_signs").verdict) == {UNKNOWN}


def test_figures_draw_one_tokenizer_and_name_the_points_it_lacks(measured, results, capsys):
    for length in (0, 1, 2, 4, 8, 16):
        for steps in (1, 20):
            values = {"psnr": 15.0 + length, "l1": 0.6 - length / 40, "rfvd": 300.0 - length - steps}
            measured(values, row=[length], flow_steps=steps)
            values = {"feature_agreement": 0.3 + length / 40, "feature_frechet": 50.0 - length - steps}
            measured(values, protocol="embedded-features", row=[length], flow_steps=steps)
    measured({"psnr": 99.0, "l1": 0.0, "rfvd": 0.0}, row=[1], sha256="c" * 64)
    captions = [f"clip 0\n{told}" for told in ("real", "1 tokens per frame")]
    stored.save(results / "samples" / "videoflextok-reconstructed.npz", gratings(2, frames=8, size=16), captions)
    assert figure2.main(["--results", str(results)]) == 0
    assert {"videoflextok_figure2_clips.png", "videoflextok_figure2_clips.webp"} <= {
        path.name for path in (results / "figures").iterdir()
    }
    frame = pd.read_csv(results / "figures" / "videoflextok_figure2.csv")
    assert len(frame) == 6 * 2 * (3 + 2)
    assert frame.value.max() < 301
    assert set(csv(results, "figure2_signs").verdict) == {HOLDS}
    assert "What would fill" not in capsys.readouterr().out
    assert figure12.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "figures" / "videoflextok_figure12.csv").set_index(["tokens", "flow_steps"])
    assert frame.decoder_flops[4, 20] == 20 * 1000
    told = capsys.readouterr().out
    assert "checkpoint=results/checkpoints/flex.safetensors assignment=uniform:4 flow_steps=5" in told
    assert "assignment=uniform:4 flow_steps=20" not in told.partition("What would fill")[2]


def test_figures_show_the_tokenizer_of_table_8_and_not_its_control_of_more_points(measured, results):
    """All of one tokenizer, by pixels and by features, whichever was measured most or last."""
    ours, control = ({"stage": 2, "decoder_mask": mask} for mask in ("full", "causal"))
    for row, rfvd in ((4, 60.0), (16, 50.0)):
        measured({"psnr": 20.0 + row, "l1": 1 / row, "rfvd": rfvd}, ours, row=[row])
    measured({"feature_agreement": 0.5, "feature_frechet": 9.0}, ours, protocol="embedded-features", row=[4])
    for row in (1, 2, 4, 8, 16):
        other = {"sha256": "c" * 64, "row": [row]}
        measured({"psnr": 30.0, "l1": 0.01, "rfvd": 1.0}, control, **other)
        measured({"feature_agreement": 0.9, "feature_frechet": 1.0}, control, protocol="embedded-features", **other)
    assert figure2.main(["--results", str(results)]) == 0
    drawn = pd.read_csv(results / "figures" / "videoflextok_figure2.csv")
    assert set(drawn.tokens[drawn.metric == "rfvd"]) == {4, 16}
    assert drawn.value[drawn.metric == "feature_frechet"].tolist() == [9.0]
    text = (results / "tables" / "videoflextok_figure2_signs.md").read_text()
    assert "`flex.safetensors` (stage 2, full attention in the decoder, seed 0; sha256 aaaaaaaaaaaa)" in text
    assert figure12.main(["--results", str(results)]) == 0
    assert set(pd.read_csv(results / "figures" / "videoflextok_figure12.csv").value) == {50.0, 60.0}


@pytest.fixture
def long_clips(results) -> Callable[..., records.Record]:
    """Writes a record of long clips: (seam ratio of conditioned chunks, clips) -> the record."""

    def write(seam: float, clips: int = 16) -> records.Record:
        def ratio(value: float) -> Metric:
            return Metric(value, "", clips, "lower", 0.1)

        conditioned = {"seam_ratio_k4_conditioned": ratio(seam), "seam_ratio_k4_alone": ratio(2.5)}
        tokens = {"tokens_k4_conditioned": Metric(64, "tokens", clips, "lower", 0.0)}
        record = records.new_record(
            kind="videoflextok_long",
            status="toy",
            protocol={"frames": 64, "clips": clips},
            model={"sha256": "a"},
            metrics={"seam_ratio_real": ratio(1.0), **conditioned, **tokens},
            config={},
            environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
        )
        records.write(record, results / "records")
        return record

    return write


def test_seams_are_judged_with_their_intervals(long_clips, results):
    long_clips(1.2)
    assert long.main(["--results", str(results)]) == 0
    assert csv(results, "long_signs").verdict.tolist() == [HOLDS, HOLDS]
    assert csv(results, "long").set_index(["row", "metric"]).ours["4 tokens, alone", "seam_ratio"] == 2.5


def test_a_later_trial_on_fewer_clips_does_not_replace_a_measurement(long_clips, results):
    long_clips(1.9)
    measurement, _ = long_clips(1.2), long_clips(1.0, clips=2)
    assert long.main(["--results", str(results)]) == 0
    assert set(csv(results, "long").record) == {measurement.id}


def test_the_papers_token_arithmetic_and_sizes_come_out(results):
    assert tokens.main(["--results", str(results)]) == 0
    assert set(csv(results, "tokens_signs").verdict) == {HOLDS}
    frame = csv(results, "tokens").set_index(["row", "metric"])
    assert frame.ours["81 frames, 32 per latent frame", "tokens"] == 672
    assert frame.ours["81 frames, all (3D grid)", "tokens"] == 5376
