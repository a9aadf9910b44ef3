"""Measured ratios into a record and into the table of speeds, and out of the table what is worth showing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.ratios import Ratio
from benchmarks.registry import Measured, names
from benchmarks.setting import SAVED, Setting
from evatok.metrics.catalogue import unit_of_cost
from evatok.storage import records
from evatok.storage.environment import environment
from evatok.storage.records import Metric, Record

COLUMNS = ["row", "metric", "baseline", "ours", "ratio", "device", "record"]
SHOWN = {
    ("tree_search", "block_evaluations"): "exact search of stage 2: blocks reconstructed, brute force and prefix tree",
    ("tree_search", "wall_seconds"): "exact search of stage 2: seconds, brute force and prefix tree",
    ("beam_search", "block_evaluations"): "search by beam: blocks reconstructed, prefix tree and beam",
    ("beam_search", "wall_seconds"): "search by beam: seconds, prefix tree and beam",
    ("stage2_100k_clips", "hours"): "stage 2 of the paper's 100,000 clips: hours, brute force and prefix tree",
    ("encode", "wall_seconds_uniform_to_router"): "encoding: seconds, uniform length and the router's lengths",
    ("encode", "wall_seconds_padded_to_grouped"): "encoding at the router's lengths: seconds, padded and grouped",
    ("encode_token_dependent", "wall_seconds_per_token"): "of it what depends on tokens: seconds a token",
    ("decode", "wall_seconds_padded_to_grouped"): "decoding at the router's lengths: seconds, padded and grouped",
    ("training_step", "wall_seconds"): "a training step at the router's lengths: seconds, padded and grouped",
    ("training_step_random_lengths", "wall_seconds"): "a proxy's training step: seconds, padded and grouped",
    ("training_step", "seconds_at_peak"): "model FLOPs utilisation of a training step (the ratio)",
    ("router_paper_size_pyramid", "flop"): "operations of a pass of the paper's tokenizer and of our router",
    ("router_paper_size_vit", "flop"): "operations of a pass of the paper's tokenizer and of the paper's router",
    ("router_pyramid", "wall_seconds"): "seconds of a pass of the tokenizer and of our router",
    ("bf16", "wall_seconds"): "a pass of the tokenizer: seconds, float32 and bfloat16",
    ("bf16", "psnr_db"): "its reconstructions: PSNR, float32 and bfloat16",
    ("generator_cache", "wall_seconds_per_token"): "generator: seconds a token, without and with a cache",
    ("generator_adaptive_few", "wall_seconds"): "generator, few at once: seconds, uniform and router's lengths",
    ("generator_adaptive_few", "tokens"): "generator, few at once: tokens, uniform and router's lengths",
    ("generator_adaptive_many", "wall_seconds"): "generator, many at once: seconds, uniform and router's lengths",
    ("generator_adaptive_many", "tokens"): "generator, many at once: tokens, uniform and router's lengths",
    ("i3d", "wall_seconds_per_clip_bf16"): "I3D: seconds a clip, float32 and bfloat16",
    ("lpips", "wall_seconds_per_clip_bf16"): "LPIPS (VGG): seconds a clip, float32 and bfloat16",
    ("video_decode", "wall_seconds_end"): "16 frames from the end of a video file: seconds, decoding all and seeking",
    ("compile", "wall_seconds"): "a pass of the tokenizer: seconds, as it is and compiled",
}
"""Rows for a README, with what they say."""


def write(measured: Measured, setting: Setting, results: Path, *, seconds: float, whole: bool) -> Record:
    """Write results/records/speed-*.json and results/tables/speed.csv.

    Args:
        seconds: wall time of the whole run.
        whole: everything that can be measured was, so that all rows of this device are replaced; otherwise those
            rows alone that were measured this time.

    Raises:
        RecordError: nothing was measured.
    """
    record = records.read(records.write(to_record(measured, setting, seconds), results / "records"))
    path = results / "tables" / "speed.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = _lines(measured, record)
    kept = _kept(path, record.environment["device"], None if whole else measured)
    merged = lines if kept.empty else pd.concat([kept, lines], ignore_index=True)
    merged.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return record


def to_record(measured: Measured, setting: Setting, seconds: float) -> Record:
    """The record of kind "speed": three metrics a ratio, `row/metric/baseline`, `/ours` and `/ratio`."""
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


def worth_showing(tables: Path) -> pd.DataFrame:
    """what | baseline | ours | times | device | record, a line for each row of SHOWN that speed.csv has.

    Raises FileNotFoundError where nothing was measured yet.
    """
    table = pd.read_csv(tables / "speed.csv").dropna(subset=["ratio"])
    order = {key: number for number, key in enumerate(SHOWN)}
    lines = [
        {
            "what": SHOWN.get((line["row"], line["metric"]), f"{line['row']}, {line['metric']}"),
            "baseline": _number(line["baseline"]),
            "ours": _number(line["ours"]),
            "times": f"{line['ratio']:.2f}",
            "device": line["device"],
            "record": f"`{line['record']}`",
            "order": order.get((line["row"], line["metric"]), len(order)),
        }
        for line in table.to_dict("records")
        if (line["row"], line["metric"]) in order or _is_beams_percentile(line)
    ]
    columns = ["what", "baseline", "ours", "times", "device", "record"]
    return pd.DataFrame(lines, columns=[*columns, "order"]).sort_values(["device", "order"])[columns]


def is_whole(wanted: list[str] | None, setting: Setting) -> bool:
    """Whether a choice of measurements leaves none out."""
    return wanted is None or set(wanted) >= set(names(setting))


def _metrics(ratio: Ratio, repeats: int) -> dict[str, Metric]:
    name = f"{ratio.row}/{ratio.metric}"
    unit = unit_of_cost(ratio.metric)
    return {
        f"{name}/baseline": Metric(ratio.baseline, unit, repeats, None),
        f"{name}/ours": Metric(ratio.ours, unit, repeats, None),
        f"{name}/ratio": Metric(ratio.ratio, "", repeats, "higher"),
    }


def _lines(measured: Measured, record: Record) -> pd.DataFrame:
    """The run's rows; a failure's has its reason in place of the metric, and no numbers."""
    where = {"device": record.environment["device"], "record": record.id}
    ratios = [
        {"row": r.row, "metric": r.metric, "baseline": r.baseline, "ours": r.ours, "ratio": r.ratio, **where}
        for r in measured.ratios
    ]
    failures = [{"row": f.row, "metric": f"failed ({f.reason})", **where} for f in measured.failures]
    return pd.DataFrame([*ratios, *failures], columns=COLUMNS)


def _kept(path: Path, device: str, measured: Measured | None) -> pd.DataFrame:
    """What stays of the table: other devices' rows, and this one's that were not measured again; None: none of those.

    An earlier failure goes as soon as its measurement is run again.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path)
    again = table["device"].eq(device)
    if measured is not None:
        found = {(ratio.row, ratio.metric) for ratio in measured.ratios}
        same = [key in found for key in zip(table["row"], table["metric"], strict=True)]
        failed = table["metric"].str.startswith("failed") & table["row"].isin(measured.seconds.keys())
        again &= pd.Series(same, index=table.index) | failed
    return table[~again]


def _is_beams_percentile(line: Mapping[Hashable, Any]) -> bool:
    """The tables and weights of the percentiles are named in their metrics."""
    return line["row"] == "beam_search" and str(line["metric"]).startswith("percentile_")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
