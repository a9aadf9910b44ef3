"""Supplement Table 4 and Figure 7: which records of images are shown, and what is said of the paper's claims."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evatok.reporting import curve_figures, image_curves, image_tables
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions import figure7, table4
from tests.factories import ENVIRONMENT
from tests.reporting.test_curve_figures import synthetic

RECONSTRUCTION, GENERATION = image_tables.PROTOCOLS


def metric(value: float, direction: str = "lower") -> Metric:
    return Metric(value, "", 2048, direction, 0.001)


def evaluation(folder: Path, assignment: str, seed: int = 0, *, st_lpips: float, tokens: float, **facts: object) -> str:
    """Write the evaluation of a final tokenizer; returns the tokenizer's hash."""
    told = {"stage": 4, "modality": "image", "front": "cnn", "assignment": assignment, "seed": seed, **facts}
    model = {
        "sha256": f"{assignment}{seed}{told.get('steps', 1500)}",
        "assignment": assignment,
        "facts": {"size": "toy", "steps": 1500, "discriminator": "semantic", "perceptual": "st-lpips", **told},
        "parents": {"train_clips": "t", "start": "s"},
    }
    values = {"st_lpips_alex": st_lpips, "rfd_efficientnet": 10 * st_lpips, "mean_tokens": tokens}
    protocol = {"name": RECONSTRUCTION, "comparable": True, "hash": "h"}
    write(folder, "evaluate", protocol, model, values)
    return str(model["sha256"])


def sampling(folder: Path, tokenizer: str, *, distance: float, tokens: float, comparable: bool = True) -> None:
    model = {"parents": {"tokenizer": tokenizer}, "facts": {}}
    protocol = {"name": GENERATION, "comparable": comparable, "hash": "g"}
    write(folder, "sample", protocol, model, {"gfd_efficientnet": distance, "mean_tokens": tokens})


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
