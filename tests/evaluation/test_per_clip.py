"""Values of every clip lie beside a record, are never taken from elsewhere, and pair rows of the same clips alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from evatok.evaluation import per_clip
from evatok.metrics.bootstrap import Interval, bootstrap_statistic
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.storage import environment, records
from evatok.storage.files import sha256_file
from evatok.storage.records import Metric, Record, RecordError

COUNT, WIDTH = 60, 4


def record(
    root: Any, arrays: dict[str, np.ndarray], reference: dict[str, np.ndarray] | None = None, **protocol: Any
) -> Record:
    """An evaluation's record with its files in a repository `root`."""
    parts = {per_clip.MEASURED: arrays, per_clip.REFERENCE: reference or {}}
    written = {name: per_clip.write(held, root / "per_clip", name) for name, held in parts.items() if held}
    told = {"hash": "h", "measured_clips": COUNT, "manifest": {"sha256": "s"}, **protocol}
    return records.new_record(
        kind="evaluate",
        status="toy",
        protocol=told,
        model={},
        metrics={"psnr": Metric(20.0, "dB", COUNT, "higher")},
        config={},
        environment=environment.environment(wall_seconds=1.0),
        artifacts={name: records.Artifact.of(path, root) for name, path in written.items()},
    )


@pytest.fixture
def psnr() -> np.ndarray:
    return np.random.default_rng(0).normal(24, 4, COUNT)


def test_a_small_gain_on_every_clip_is_seen(tmp_path, psnr):
    """Clips differ by 4 dB, rows by 0.2: independent intervals of ± 1 would tell nothing."""
    gain = np.random.default_rng(1).normal(0.2, 0.1, COUNT)
    found = per_clip.paired(record(tmp_path, {"psnr": psnr + gain}), record(tmp_path, {"psnr": psnr}), "psnr", tmp_path)
    assert found.value == pytest.approx(gain.mean(), abs=1e-5)
    assert 0.15 < found.low < found.value < found.high < 0.25


@pytest.mark.parametrize("metric", ["rfvd", "gfvd"])
def test_distances_are_drawn_with_the_same_clips_on_both_sides(tmp_path, metric):
    """What lies nearer to the real features is better, beyond the interval, though draws raise either distance."""
    random = np.random.default_rng(0)
    real, noise = random.normal(size=(2, COUNT, WIDTH))
    near, far = real + 0.3 * noise + 0.2, real + 0.3 * noise + 0.4
    rows = [record(tmp_path, {per_clip.FEATURES: side}, {per_clip.REAL: real}) for side in (near, far)]
    found = per_clip.paired(*rows, metric, tmp_path)
    exact = [frechet_distance_of_features(real, side) for side in (near, far)]
    assert found.value == pytest.approx(exact[0] - exact[1], rel=1e-2), "float16 costs no more"
    assert found.low < found.value < found.high < 0
    same = per_clip.paired(rows[0], rows[0], metric, tmp_path)
    assert (same.low, same.high) == (0, 0)


def difference_alone(one: np.ndarray, other: np.ndarray) -> Interval:
    return bootstrap_statistic(np.arange(len(one)), lambda drawn: one[drawn].mean() - other[drawn].mean())


def test_a_row_of_several_comparisons_is_drawn_once_and_compared_as_a_pair_alone_would_be(tmp_path, monkeypatch):
    random, computed = np.random.default_rng(7), []
    values = random.normal(24, 4, (3, COUNT)).astype(np.float32).astype(np.float64)
    one, two, three = (record(tmp_path, {"psnr": row}) for row in values)

    def mean(rows: np.ndarray) -> float:
        computed.append(len(rows))
        return float(rows.mean())

    monkeypatch.setattr(per_clip, "_statistic", lambda metric: mean)
    found = [per_clip.paired(*pair, "psnr", tmp_path) for pair in ((one, two), (one, three), (two, three), (one, two))]
    assert len(computed) == 3 * 2001
    assert found[0] == found[3] == difference_alone(values[0], values[1])
    assert found[1:3] == [difference_alone(values[row], values[2]) for row in (0, 1)]


def test_motion_is_compared_by_its_moments(tmp_path):
    moments = np.random.default_rng(0).uniform(1, 2, (COUNT, 8))
    less = moments * [1, 1, 1, 1, 1, 1, 1, 0.5]
    rows = [record(tmp_path, {per_clip.MOTION: side}) for side in (less, moments)]
    found = per_clip.paired(*rows, "motion_ratio", tmp_path)
    assert found.value == pytest.approx(-0.5 * moments[:, 7].sum() / moments[:, 6].sum())
    assert found.high < 0


@pytest.mark.parametrize(
    "other", [{"manifest": {"sha256": "t"}}, {"hash": "i"}, {"measured_clips": 59}, {"manifest": {}}]
)
def test_rows_of_other_clips_are_no_pairs(tmp_path, psnr, other):
    one, two = record(tmp_path, {"psnr": psnr}), record(tmp_path, {"psnr": psnr}, **other)
    assert per_clip.paired(one, two, "psnr", tmp_path) is None
    assert per_clip.paired(one, one, "psnr", tmp_path) is not None


def test_what_a_row_did_not_leave_cannot_be_paired(tmp_path, psnr):
    one = record(tmp_path, {"psnr": psnr})
    assert per_clip.paired(one, one, "ssim", tmp_path) is None
    assert per_clip.paired(one, one, "rfvd", tmp_path) is None
    assert per_clip.paired(one, dataclasses.replace(one, artifacts={}), "psnr", tmp_path) is None
    infinite = record(tmp_path, {"psnr": np.where(np.arange(COUNT) == 3, np.inf, psnr)})
    assert per_clip.paired(one, infinite, "psnr", tmp_path) is None
    next((tmp_path / "per_clip").glob("per_clip-*")).unlink()
    assert {per_clip.read(row, tmp_path) is None for row in (one, infinite)} == {True, False}


def test_a_file_that_is_not_what_its_record_names_is_refused(tmp_path, psnr):
    one = record(tmp_path, {"psnr": psnr})
    path = tmp_path / one.artifacts[per_clip.MEASURED].path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match=f"its content does not match record {one.id}"):
        per_clip.read(one, tmp_path)


def test_equal_values_are_one_file_and_no_part_is_left(tmp_path, psnr):
    first, again = (per_clip.write({"psnr": psnr}, tmp_path, "per_clip") for _ in range(2))
    assert first == again
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert sha256_file(first).startswith(first.stem.removeprefix("per_clip-"))


def test_features_that_half_precision_cannot_hold_are_kept_whole(tmp_path):
    for scale, kept in ((1.0, np.float16), (1e5, np.float32)):
        path = per_clip.write({per_clip.FEATURES: np.full((3, 2), scale, np.float32)}, tmp_path, "per_clip")
        with np.load(path) as file:
            assert file[per_clip.FEATURES].dtype == kept
            assert np.isfinite(file[per_clip.FEATURES]).all()
