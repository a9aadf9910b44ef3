"""Long clips of a generator: cells and claims from a record of `evatok.experiments.videoflextok_long_samples`."""

from __future__ import annotations

from evatok.reporting import claims
from evatok.reporting.claims import FAILS, HOLDS, Sign
from evatok.reporting.flextok_long import BOUND
from evatok.reporting.tables import Cell
from evatok.storage.records import Metric, Record

SHARE = 1 / 8
"""Share of the 3D grid's tokens: 672 of 5,376."""


def cells_of(record: Record) -> list[Cell]:
    """Return samples and real clips, each with its seams and windows; the 3D grid's tokens are counted."""
    cells = []
    for name, metric in record.metrics.items():
        row = "real clips" if name.endswith("_real") else "samples"
        cells.append(Cell.of_record(row, name.removesuffix("_real"), metric, record))
    grid = float(record.model["grid_tokens"])
    cells.append(Cell("3D grid", "mean_tokens", None, grid, "tokens", 1, record.status, record.id))
    return sorted(cells, key=lambda cell: ("samples", "real clips", "3D grid").index(cell.row))


def claims_of(record: Record) -> list[Sign]:
    """Claim few tokens, chunks that join, and a class still recognised at the end.

    Chance is the share of the most requested class, which naming one class for every clip would reach.
    """
    found, model = record.metrics, record.model
    tokens, grid = found["mean_tokens"].value, model["grid_tokens"]
    windows = _windows(record)
    first, last = windows[0], windows[-1]
    requested = model.get("requested") or dict.fromkeys(model["classes"], 1)
    chance = 100 * max(requested.values()) / sum(requested.values())
    return [
        Sign(
            "at most an eighth of the 3D grid's tokens",
            "672 against 5,376",
            f"{tokens:.0f} against {grid}",
            HOLDS if tokens <= SHARE * grid else FAILS,
        ),
        _sign(f"seam ratio at most {BOUND}", found["seam_ratio"], BOUND - found["seam_ratio"].value),
        _sign("the class is seen at the end as at the start", last, last.value - first.value, first, or_equal=True),
        _sign(f"at the end more often than chance ({chance:.1f} %)", last, last.value - chance),
    ]


def _windows(record: Record) -> list[Metric]:
    """Return the class consistency of the samples, window by window."""
    count = sum(name.startswith("class_consistency_window") and not name.endswith("_real") for name in record.metrics)
    return [record.metrics[f"class_consistency_window{number + 1}"] for number in range(count)]


def _sign(name: str, ours: Metric, gain: float, other: Metric | None = None, *, or_equal: bool = False) -> Sign:
    half = claims.joint(ours.spread, other.spread) if other else ours.spread
    against = f" against {other.value:.2f}" if other else ""
    told = f"{ours.value:.2f}{against} ({'no interval' if half is None else f'± {half:.2f}'}; n = {ours.n})"
    return Sign(name, "consistent (pictures)", told, claims.verdict(claims.around(gain, half), or_equal=or_equal))
