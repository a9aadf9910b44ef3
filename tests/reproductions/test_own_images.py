"""Supplement Table 4 and Figure 7 of a user's own images, on small untrained networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evatok.assignments.reward import Scale
from evatok.evaluation import pairs
from evatok.reporting import image_tables
from evatok.routing.trained_router import OperatingPoint, Router
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import AdaptiveTokenizer
from reproductions import figure7, table2, table4
from tests.factories import TINY_IMAGE, saved_router, saved_tokenizer

SHAPE = replace(TINY_IMAGE, size=64, levels=(16, 32, 64, 96))
IMAGES = 4


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder `mine` of class folders of images, and one of image networks: a proxy, its routers, two finals."""
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        path = tmp_path / "mine" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(path)
    networks = tmp_path / "networks"
    networks.mkdir()
    saved_tokenizer(networks / "image-proxy-toy.safetensors", SHAPE)
    of_router = {"levels": SHAPE.levels, "frames": 1, "size": 64, "patch": (1, 8, 8)}
    of_router |= {"kind": "vit", "width": 16, "layers": 1, "heads": 2}
    for w_q, name in ((1.3, "image-router-toy"), (1.6, "image-router-toy-wq1.6")):
        point = OperatingPoint("l1", w_q, Scale(-0.3, 0.01, 52.0, 30.0))
        saved_router(networks / f"{name}.safetensors", **of_router, point=point)
    router = Router.load(networks / "image-router-toy.safetensors").checkpoint.sha256
    for assignment, parents in (("uniform", {}), ("router", {"router": router})):
        path = networks / f"image-final-toy-{assignment}.safetensors"
        facts = {"size": "toy", "stage": 4, "modality": "image", "assignment": assignment, "seed": 0, "steps": 3}
        final, config = AdaptiveTokenizer(SHAPE), SHAPE.to_dict()
        checkpoints.save(path, final, kind="tokenizer", config=config, facts=facts, parents=parents)
    return tmp_path


def asked(here: Path) -> list[str]:
    given = {"results": here / "results", "data": here / "mine", "checkpoints": here / "networks"}
    return [f"--{name}={value}" for name, value in given.items()]


def test_curves_of_ones_own_images_take_the_image_networks(here, capsys):
    assert figure7.main([*asked(here), "--metrics", "psnr"]) == 0
    told = capsys.readouterr().out
    assert f"scoring {IMAGES} images under 4 assignments: about" in told
    (record,) = records.query(here / "results" / "records", kind="curves")
    assert record.protocol["clips"] == IMAGES
    rules = {name.partition(".")[0] for name in record.metrics}
    assert "router" in rules
    assert (here / "results" / "figures" / "figure7_mine.svg").exists()
    signs = pd.read_csv(here / "results" / "tables" / "figure7_mine_signs.csv").set_index("name")
    assert signs.loc["mine, PSNR: max_reward no worse than uniform at any budget", "verdict"] != "not measured"
    assert not any(name.startswith("images") for name in signs.index)


def test_table4_measures_the_finals_on_ones_own_images(here, capsys):
    assert table4.main([*asked(here), "--metrics", "psnr,l1"]) == 0
    assert f"measuring 2 tokenizers on {IMAGES} images: about" in capsys.readouterr().out
    table = pd.read_csv(here / "results" / "tables" / "table4_mine.csv").set_index(["row", "metric"])
    held = {record.model["assignment"]: record for record in records.query(here / "results" / "records")}
    for row, record in held.items():
        assert record.protocol["name"] == "own-images-reconstruction"
        assert table.loc[(row, "psnr"), "ours"] == pytest.approx(record.metrics["psnr"].value, abs=1e-4)
    assert set(held) == {"uniform", "router"}
    assert table.loc[("uniform", "rtokens"), "ours"] == 64
    assert pd.isna(table.loc[("router", "gtokens"), "ours"]), "nothing is generated of a user's images"
    assert not image_tables.choose(here / "results" / "records").reconstructed["uniform"].records


def test_a_folder_without_image_networks_is_refused_in_one_line(here, capsys):
    for script, told in ((table4, "no toy tokenizer of any row of table4"), (figure7, "image-proxy-toy.safetensors")):
        with pytest.raises(SystemExit, match="2"):
            script.main([*asked(here)[:2], "--checkpoints", str(here)])
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def refused(capsys, script, *arguments: str) -> str:
    """The last line of what a script says as it refuses."""
    with pytest.raises(SystemExit, match="2"):
        script.main(list(arguments))
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("script", [figure7, table4])
def test_metrics_that_cannot_be_measured_are_refused_before_anything_is_decoded(script, here, capsys):
    for metrics, told in (("foo", "'foo' cannot be measured"), (" , ", "no metric to measure")):
        line = refused(capsys, script, *asked(here), "--metrics", metrics)
        assert f"--metrics {metrics!r}: {told}" in line
        assert "choose from psnr, ssim" in line
    assert not (here / "cache").exists()
    assert not (here / "results").exists()


@pytest.mark.parametrize("script", [figure7, table4])
def test_one_image_is_no_set_whose_distance_could_be_measured(script, here, capsys, monkeypatch):
    monkeypatch.setattr(pairs, "load_networks", lambda metrics, device, given: {})
    line = refused(capsys, script, *asked(here), "--clips", "1", "--metrics", "psnr,rfd_efficientnet")
    assert "--metrics: rfd_efficientnet compares sets of at least 2 clips, and mine has 1" in line
    assert not (here / "results").exists(), "nothing was scored before"


@pytest.mark.parametrize("script", [figure7, table4, table2])
def test_a_size_that_does_not_exist_is_refused_with_those_that_do(script, capsys):
    line = refused(capsys, script, "--size", "foo")
    assert "--size" in line
    assert all(size in line for size in ("toy", "small", "paper"))


@pytest.mark.parametrize("count", ["-2", "0", "many"])
def test_a_number_of_clips_below_one_is_refused(count, capsys):
    line = refused(capsys, figure7, "--data", "mine", "--clips", count)
    assert f"--clips/--limit: must be an integer of at least 1, got {count!r}" in line
