"""Write measured ratios to a record and to the table of speeds, which `evatok.reporting.speed` shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from benchmarks.ratios import Ratio
from benchmarks.registry import Measured, names
from benchmarks.setting import SAVED, Setting
from evatok.metrics.catalogue import unit_of_cost
from evatok.storage import records
from evatok.storage.environment import environment
from evatok.storage.records import Metric, Record

COLUMNS = ["row", "metric", "baseline", "ours", "ratio", "device", "record"]


def write(measured: Measured, setting: Setting, results: Path, *, seconds: float, complete: bool) -> Record:
    """Write results/records/speed-*.json and results/tables/speed.csv.

    Args:
        seconds: wall time of the run.
        complete: everything that can be measured was, so that all rows of this device are replaced; otherwise only the
            rows that were measured.

    Raises:
        RecordError: nothing was measured.
    """
    record = records.read(records.write(to_record(measured, setting, seconds), results / "records"))
    path = results / "tables" / "speed.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = _lines(measured, record)
    kept = _kept(path, record.environment["device"], None if complete else measured)
    merged = lines if kept.empty else pd.concat([kept, lines], ignore_index=True)
    merged.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return record


def to_record(measured: Measured, setting: Setting, seconds: float) -> Record:
    """Make the record of kind "speed", with three metrics per ratio: `row/metric/baseline`, `/ours` and `/ratio`."""
    metrics: dict[str, Metric] = {}
    for ratio in measured.ratios:
        metrics |= _metrics(ratio, setting.repeats)
    shape = {name: value for name, value in asdict(setting).items() if name not in ("source", "tokenizer", "router")}
    return records.new_record(
        kind="speed",
        status=setting.size,
        protocol={
            "measured": "costs of a plain baseline and of ours in turns, medians over the turns of one run",
            "clips": "noise of the networks' size, embedded clips where quality is compared",
            "lengths": f"uniform {setting.uniform[0]} a block; router's: best assignments averaging {SAVED:.3f} of it",
            "notes": {f"{ratio.row}/{ratio.metric}": ratio.note for ratio in measured.ratios},
            "failed": {failure.row: failure.reason for failure in measured.failures},
            "seconds": measured.seconds,
        },
        model={"weights": "random", "tokenizer": setting.tokenizer.to_dict(), "router": setting.router.to_dict()},
        metrics=metrics,
        config={**shape, "embedded": setting.source.name},
        environment=environment(wall_seconds=seconds),
    )


def is_complete(chosen: list[str] | None, setting: Setting) -> bool:
    """Whether a choice of measurements includes all."""
    return chosen is None or set(chosen) >= set(names(setting))


def _metrics(ratio: Ratio, repeats: int) -> dict[str, Metric]:
    name = f"{ratio.row}/{ratio.metric}"
    unit = unit_of_cost(ratio.metric)
    return {
        f"{name}/baseline": Metric(ratio.baseline, unit, repeats, None),
        f"{name}/ours": Metric(ratio.ours, unit, repeats, None),
        f"{name}/ratio": Metric(ratio.ratio, "", repeats, "higher"),
    }


def _lines(measured: Measured, record: Record) -> pd.DataFrame:
    """Rows of a run; that of a failure has the reason as its metric, and no numbers."""
    where = {"device": record.environment["device"], "record": record.id}
    ratios = [
        {"row": r.row, "metric": r.metric, "baseline": r.baseline, "ours": r.ours, "ratio": r.ratio, **where}
        for r in measured.ratios
    ]
    failures = [{"row": f.row, "metric": f"failed ({f.reason})", **where} for f in measured.failures]
    return pd.DataFrame([*ratios, *failures], columns=COLUMNS)


def _kept(path: Path, device: str, measured: Measured | None) -> pd.DataFrame:
    """Rows of the table to keep: those of other devices, and this device's that were not measured again (None: none).

    An earlier failure is dropped as soon as its measurement runs again.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path)
    replaced = table["device"].eq(device)
    if measured is not None:
        keys = {(ratio.row, ratio.metric) for ratio in measured.ratios}
        same = [key in keys for key in zip(table["row"], table["metric"], strict=True)]
        failed = table["metric"].str.startswith("failed") & table["row"].isin(measured.seconds.keys())
        replaced &= pd.Series(same, index=table.index) | failed
    return table[~replaced]
