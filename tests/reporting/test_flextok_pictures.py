"""Figures 5 and 8 from records and files of samples: pictures, claims, and what is missing."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from PIL import Image

from evatok.pictures import stored
from evatok.reporting.claims import FAILS, HOLDS, UNSURE
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions.videoflextok import figure5, figure8
from tests.factories import gratings


def write(folder, kind: str, values: dict[str, tuple[float, float | None]], **told: Any) -> None:
    """A record of `kind` with metrics by name: (value, half of an interval)."""
    metrics = {name: Metric(value, "", 64, None, half) for name, (value, half) in values.items()}
    record = records.new_record(
        kind=f"videoflextok_{kind}",
        status="toy",
        protocol={"samples": 64, "frames": 64},
        model=told,
        metrics=metrics,
        config={},
        environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
    )
    records.write(record, folder / "records")


def verdicts(folder, name: str) -> dict[str, str]:
    found = pd.read_csv(folder / "tables" / f"videoflextok_{name}_signs.csv")
    return dict(zip(found.name, found.verdict, strict=True))


@pytest.mark.parametrize(
    ("script", "recipe"), [(figure5, "videoflextok-growing"), (figure8, "videoflextok-long-samples")]
)
def test_without_records_the_recipe_is_named_and_nothing_is_drawn(script, recipe, tmp_path, capsys):
    assert script.main(["--results", str(tmp_path)]) == 0
    assert f"make {recipe}" in capsys.readouterr().out
    assert not (tmp_path / "figures").exists()


def test_each_doubling_is_judged_by_its_interval(tmp_path):
    values = {"l1_k1": (0.1, 0.01), "l1_k2": (0.05, 0.01), "l1_k4": (0.048, 0.01), "l1_k8": (0.09, 0.01)}
    write(tmp_path, "growing", values)
    assert figure5.main(["--results", str(tmp_path)]) == 0
    assert list(verdicts(tmp_path, "figure5").values()) == [HOLDS, UNSURE, FAILS]


@pytest.mark.parametrize(("last", "tokens", "expected"), [(60.0, 32.0, HOLDS), (20.0, 40.0, FAILS)])
def test_a_long_clip_keeps_its_class_and_takes_an_eighth_of_the_tokens(tmp_path, last, tokens, expected):
    values = {"mean_tokens": (tokens, None), "seam_ratio": (1.1, 0.1), "seam_ratio_real": (1.0, 0.01)}
    values |= {"class_consistency_window1": (50.0, 5.0), "class_consistency_window2": (last, 5.0)}
    values |= {"class_consistency_window1_real": (90.0, 5.0), "class_consistency_window2_real": (90.0, 5.0)}
    write(tmp_path, "long_samples", values, grid_tokens=256, classes=["a", "b", "c", "d"])
    assert figure8.main(["--results", str(tmp_path)]) == 0
    found = verdicts(tmp_path, "figure8")
    assert found["at most an eighth of the 3D grid's tokens"] == expected
    assert found["the class is seen at the end as at the start"] == expected
    assert found["seam ratio at most 1.5"] == HOLDS
    table = pd.read_csv(tmp_path / "tables" / "videoflextok_figure8.csv").set_index(["row", "metric"])
    assert (table.ours["3D grid", "mean_tokens"], table.ours["real clips", "seam_ratio"]) == (256, 1.0)


@pytest.mark.parametrize(
    ("requested", "chance", "expected"), [({"a": 32, "b": 32}, 50, UNSURE), ({"a": 64}, 100, FAILS)]
)
def test_chance_is_the_share_of_the_most_requested_class(tmp_path, requested, chance, expected):
    """Not one over the classes that the judge knows, most of which cannot come."""
    values = {"mean_tokens": (32.0, None), "seam_ratio": (1.1, 0.1)}
    values |= {"class_consistency_window1": (52.0, 5.0), "class_consistency_window2": (52.0, 5.0)}
    write(tmp_path, "long_samples", values, grid_tokens=256, classes=list("abcdefgh"), requested=requested)
    assert figure8.main(["--results", str(tmp_path)]) == 0
    assert verdicts(tmp_path, "figure8")[f"at the end more often than chance ({chance:.1f} %)"] == expected


def test_clips_of_one_condition_stand_side_by_side(tmp_path):
    """Two conditions at three lengths: a sheet of six rows, and a moving picture of two by three."""
    clips = gratings(6, frames=8, size=16)
    captions = [f"{title}\n{tokens} tokens" for title in ("pong", "tennis") for tokens in (1, 2, "all")]
    stored.save(tmp_path / "samples" / "videoflextok-growing.npz", clips, captions)
    assert figure5.main(["--results", str(tmp_path)]) == 0
    with Image.open(tmp_path / "figures" / "videoflextok_figure5.webp") as moving:
        assert moving.n_frames == 8
        wide, high = moving.size
    assert 3 * 32 < wide < 4 * 32
    assert 2 * 32 < high < 3 * 32
    assert (tmp_path / "figures" / "videoflextok_figure5.png").stat().st_size > 1000
