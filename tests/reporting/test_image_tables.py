"""Supplement Table 4 and Figure 7: which records of images are shown, and what is said of the paper's claims."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evatok.reporting import curve_figures, generation_rows, image_curves, image_tables
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions import figure7, table4
from tests.factories import ENVIRONMENT
from tests.reporting.test_curve_figures import synthetic

RECONSTRUCTION, GENERATION = image_tables.PROTOCOLS


def metric(value: float, direction: str = "lower") -> Metric:
    return Metric(value, "", 2048, direction, 0.001)


def evaluation(
    folder: Path,
    assignment: str,
    seed: int = 0,
    *,
    st_lpips: float,
    tokens: float,
    row: int = 64,
    router: str = "r",
    taught_by: str = "r",
    trained_at: int = 64,
    **facts: object,
) -> str:
    """Write the evaluation of a final tokenizer; returns the tokenizer's hash.

    It was trained at the length `trained_at` or by the router `taught_by`, and is measured at `row` or under `router`.
    """
    told = {"stage": 4, "modality": "image", "front": "cnn", "assignment": assignment, "seed": seed, **facts}
    adaptive = assignment == "router"
    model = {
        "sha256": f"{assignment}{seed}{told.get('steps', 1500)}",
        "assignment": assignment,
        "facts": {"size": "toy", "steps": 1500, "discriminator": "semantic", "perceptual": "st-lpips"}
        | ({} if adaptive else {"row": [trained_at]})
        | told,
        "parents": {"train_clips": "t", "start": "s", **({"router": taught_by} if adaptive else {})},
        **({"router": router} if adaptive else {"row": [row]}),
    }
    values = {"st_lpips_alex": st_lpips, "rfd_efficientnet": 10 * st_lpips, "mean_tokens": tokens}
    protocol = {"name": RECONSTRUCTION, "comparable": True, "hash": "h"}
    write(folder, "evaluate", protocol, model, values)
    return str(model["sha256"])


def sampling(
    folder: Path,
    tokenizer: str,
    *,
    distance: float,
    tokens: float,
    comparable: bool = True,
    assignment: str = "",
    router: str = "r",
    row: int = 64,
    facts: dict | None = None,
    **drawn: object,
) -> None:
    """Write the samples of a generator trained on a tokenizer, with the tokenizer's own assignments by default."""
    rule = assignment or tokenizer.rstrip("0123456789")
    adaptive = rule == "router"
    told = {"size": "toy", "model": "toy", "steps": 2000, "batch": 64, "label": "label", "assignment": rule, "seed": 0}
    model = {
        "sha256": f"generator of {tokenizer}",
        "assignment": rule,
        "parents": {"tokenizer": tokenizer, "clips": "c", **({"router": router} if adaptive else {})},
        "facts": {**told, **({} if adaptive else {"row": [row]}), **(facts or {})},
        **{"guidance": 1.5, "temperature": 1.0, "top_k": 0, "top_p": 1.0, **drawn},
    }
    protocol = {"name": GENERATION, "comparable": comparable, "hash": "g"}
    write(folder, "sample", protocol, model, {"gfd_efficientnet": distance, "mean_tokens": tokens})


def trained(folder: Path, tokenizer: str, rate: float) -> str:
    """Write the record of a generator's training; returns the generator's hash."""
    sha256 = f"generator of {tokenizer} at {rate}"
    common = {"status": "toy", "environment": ENVIRONMENT, "protocol": {"data": "images"}}
    made = {"model": {"sha256": sha256}, "config": {"learning_rate": rate}, "metrics": {"loss": metric(1.0)}}
    records.write(records.new_record(kind=generation_rows.TRAINING, **common, **made), folder)
    return sha256


def write(folder: Path, kind: str, protocol: dict, model: dict, values: dict[str, float]) -> None:
    made = {name: metric(value) for name, value in values.items()}
    common = {"status": "toy", "config": {}, "environment": ENVIRONMENT}
    records.write(records.new_record(kind=kind, protocol=protocol, model=model, metrics=made, **common), folder)


@pytest.fixture
def results(tmp_path) -> Path:
    """Three seeds of both rows, a generator on one tokenizer of each."""
    folder = tmp_path / "records"
    for seed in range(3):
        uniform = evaluation(folder, "uniform", seed, st_lpips=0.20 + 0.001 * seed, tokens=64)
        router = evaluation(folder, "router", seed, st_lpips=0.24 + 0.001 * seed, tokens=48)
    sampling(folder, uniform, distance=3.0, tokens=64)
    sampling(folder, router, distance=2.0, tokens=60)
    return tmp_path


def verdicts(results: Path, name: str) -> dict[str, str]:
    frame = pd.read_csv(results / "tables" / f"{name}_signs.csv")
    return dict(zip(frame["name"], frame["verdict"], strict=True))


def test_rows_are_means_over_seeds_beside_the_papers_and_claims_are_judged(results):
    assert table4.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "tables" / "table4.csv").set_index(["row", "metric"])
    router = frame.loc[("router", "st_lpips")]
    assert (router["ours"], router["n"]) == (pytest.approx(0.241), 3)
    assert frame.loc[("router", "rtokens"), "paper"] == 205
    assert frame.loc[("router", "gtokens"), "ours"] == 60
    assert pd.isna(frame.loc[("router", "rfid"), "ours"])
    found = verdicts(results, "table4")
    assert found["router takes 19.9 % fewer rtokens than uniform"] == "holds"
    assert found["router takes 23.0 % fewer gtokens than uniform"] == "does not hold"
    assert found["uniform no worse than router, ST-LPIPS"] == "holds"
    assert "generators of 2000 steps, sampled with guidance 1.5" in (results / "tables" / "table4.md").read_text()


def test_proxies_videos_limited_runs_and_other_generators_stand_in_no_row(tmp_path):
    folder = tmp_path / "records"
    evaluation(folder, "uniform", st_lpips=0.2, tokens=64, stage=1)
    evaluation(folder, "uniform", st_lpips=0.2, tokens=64, modality="video")
    tokenizer = evaluation(folder, "router", st_lpips=0.2, tokens=48)
    sampling(folder, "another", distance=1.0, tokens=9)
    sampling(folder, tokenizer, distance=1.0, tokens=9, comparable=False)
    chosen = image_tables.choose(folder)
    assert chosen.value("uniform", "st_lpips") is None
    assert chosen.value("router", "rtokens").value == 48
    assert chosen.value("router", "gtokens") is None


def test_only_the_baselines_length_is_the_uniform_row(results):
    """A newer evaluation at 8 tokens, of the same tokenizer or of one that was trained so, stands in no row."""
    folder = results / "records"
    evaluation(folder, "uniform", st_lpips=0.5, tokens=8, row=8)
    evaluation(folder, "uniform", 3, st_lpips=0.5, tokens=8, row=8, trained_at=8)
    made = image_tables.choose(folder)
    assert made.value("uniform", "rtokens").value == 64
    assert made.value("uniform", "st_lpips").value == pytest.approx(0.201)


def test_only_the_router_that_taught_a_tokenizer_measures_it(results):
    """A newer evaluation under another router, and a newer tokenizer of that router, stand in no row of this one."""
    folder = results / "records"
    evaluation(folder, "router", st_lpips=0.9, tokens=9, router="foreign")
    evaluation(folder, "router", 3, st_lpips=0.9, tokens=9, router="foreign", taught_by="foreign")
    made = image_tables.choose(folder)
    assert made.value("router", "st_lpips").value == pytest.approx(0.241)
    assert {record.model["router"] for record in made.reconstructed["router"].records} == {"r"}


UNEQUAL = {
    "steps": {"facts": {"steps": 500}},
    "batch": {"facts": {"batch": 8}},
    "model": {"facts": {"model": "small"}},
    "guidance": {"guidance": 1.0},
    "temperature": {"temperature": 0.9},
    "top_k": {"top_k": 100},
    "top_p": {"top_p": 0.9},
}


@pytest.mark.parametrize("what", UNEQUAL)
def test_generators_that_differ_in_more_than_the_tokenizer_are_not_compared(results, what):
    folder = results / "records"
    sampling(folder, "router21500", distance=1.0, tokens=60, **UNEQUAL[what])
    assert image_tables.choose(folder).value("router", "gfd_efficientnet").value == 2.0
    sampling(folder, "uniform21500", distance=4.0, tokens=64, **UNEQUAL[what])
    made = image_tables.choose(folder)
    assert [made.value(row, "gfd_efficientnet").value for row in image_tables.ROWS] == [4.0, 1.0], "the newest pair"


def test_a_short_unguided_generator_proves_nothing_against_a_long_guided_one(tmp_path):
    folder = tmp_path / "records"
    uniform = evaluation(folder, "uniform", st_lpips=0.2, tokens=64)
    router = evaluation(folder, "router", st_lpips=0.24, tokens=48)
    sampling(folder, uniform, distance=3.0, tokens=64, guidance=1.0, facts={"steps": 500})
    sampling(folder, router, distance=2.0, tokens=60, guidance=1.5, facts={"steps": 5000})
    assert table4.main(["--results", str(tmp_path)]) == 0
    assert verdicts(tmp_path, "table4")["router no worse than uniform, gfd_efficientnet"] == "not measured"


def test_generators_of_different_learning_rates_are_not_compared(tmp_path):
    folder = tmp_path / "records"
    made = {name: evaluation(folder, name, st_lpips=0.2, tokens=64) for name in image_tables.ROWS}
    for name, rate in (("router", 6e-4), ("uniform", 6e-4), ("uniform", 1e-4)):
        told = {"sha256": trained(folder, made[name], rate)}
        sampling(folder, made[name], distance=1e4 * rate, tokens=64, **told)
    shown = image_tables.choose(folder)
    assert [shown.value(row, "gfd_efficientnet").value for row in image_tables.ROWS] == pytest.approx([6.0, 6.0])


def test_a_generator_stands_with_the_assignments_it_was_trained_on(tmp_path):
    folder = tmp_path / "records"
    uniform = evaluation(folder, "uniform", st_lpips=0.2, tokens=64)
    router = evaluation(folder, "router", st_lpips=0.24, tokens=48)
    sampling(folder, uniform, distance=1.0, tokens=8, row=8)
    sampling(folder, router, distance=1.0, tokens=9, router="foreign")
    sampling(folder, router, distance=1.0, tokens=64, assignment="uniform")
    made = image_tables.choose(folder)
    assert [made.value(row, "gtokens") for row in image_tables.ROWS] == [None, None]
    assert made.value("router", "rtokens").value == 48, "reconstructions stand without generators"


def test_one_table_shows_trainings_of_one_length(results):
    folder = results / "records"
    evaluation(folder, "uniform", st_lpips=0.1, tokens=64, steps=9000)
    assert image_tables.choose(folder).value("uniform", "st_lpips").value == pytest.approx(0.201)


def test_without_records_rows_are_dashes_and_the_way_to_fill_them_is_told(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    assert table4.main(["--results", str(tmp_path)]) == 0
    assert figure7.main(["--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "python -m evatok.experiments.make images" in told
    assert "python -m evatok.experiments.make image-curves" in told
    assert set(verdicts(tmp_path, "figure7").values()) == {"not measured"}


def test_the_figures_margin_is_called_marginal_only_by_its_interval(tmp_path):
    synthetic(tmp_path / "records", set="images")
    assert figure7.main(["--results", str(tmp_path)]) == 0
    found = verdicts(tmp_path, "figure7")
    assert found["images, PSNR: max_reward no worse than uniform at any budget"] == "undecided"
    assert (tmp_path / "figures" / "figure7.svg").exists()

    def of(low: float | None, high: float | None) -> str:
        saving = {"value": 15.0, "low": low, "high": high, "at_least": None}
        return image_curves.marginal("images", {"max_reward": {"psnr": saving}}, "psnr").verdict

    assert [of(5, 18), of(5, 25), of(22, 40), of(None, 12), of(5, None)] == [
        "holds",
        "undecided",
        "does not hold",
        "holds",
        "undecided",
    ]


def test_curves_of_images_and_of_videos_are_kept_apart(tmp_path):
    video = synthetic(tmp_path / "records")
    image = synthetic(tmp_path / "records", set="images")
    assert curve_figures.chosen_records(tmp_path / "records")["validation"]["psnr"].id == video.id
    held = curve_figures.chosen_records(tmp_path / "records", image_curves.SETS, image_curves.PANELS)
    assert held["images"]["psnr"].id == image.id
