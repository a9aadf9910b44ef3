"""What each stage of EVATok costs: hours from the records of what ships, operations from the networks' shapes.

Hours come from the training records of what ships: stage 1 by the proxy's file, stage 3 the router that the stage-4
record names as its parent (else the newest on that proxy), stage 2 the candidate table that router was trained on,
stage 4 the newest final tokenizer under that router. Device-hours are hours times GPUs, or times threads without a GPU.
An older record's operations are those of the network of its time (`evatok.reporting.networks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evatok.evaluation import flops
from evatok.metrics import catalogue
from evatok.reporting import claims, networks, tables
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, Sign
from evatok.reporting.tables import Cell, Table
from evatok.storage import records
from evatok.storage.files import sha256_file
from evatok.storage.records import Record
from evatok.tokenizers.evatok import TokenizerConfig

STAGES = ("stage 1", "stage 2", "stage 3", "stage 4")
SHARE = "stages 1-3 of 1-4"
HALF = 50.0
DECIDES = "Hours are counted, one training each, and compared as they are; each says how long its stage was trained."
MEASURES = {name: catalogue.of(name).unit for name in ("wall_hours", "device_hours", "pflop")}
COMMANDS = {
    "stage 1": "python -m evatok.experiments.stage1_proxy with embedded",
    "stage 2": "python -m evatok.experiments.stage2_curation with embedded split=train clips=3072 "
    "table=results/work/embedded/train.parquet",
    "stage 3": "python -m evatok.experiments.stage3_router with embedded router=pyramid target=soft",
    "stage 4": "python -m evatok.experiments.stage4_final with toy",
}
UNCOUNTED = (
    "operations are those of tokenizer and router on the tokens of each clip, with the backward pass; padding, "
    "perceptual metric, discriminator and alignment's encoder are not in them"
)
NOT_TOLD = "nor does any checkpoint there: its operations are not counted"


@dataclass(frozen=True)
class Cost:
    """What a stage took. `pflop` is 1e15 operations; None if a record does not say."""

    record: Record
    wall_hours: float | None
    device_hours: float | None
    pflop: float | None


def publish(results: Path, size: str) -> None:
    """Write and print the table with its remarks, and print the commands that would fill its dashes."""
    found, remarks = costs(results, size)
    paper = tables.paper_values("table2")
    cells = to_cells(found, published(paper), size)
    titles = {"wall_hours": "hours", "device_hours": "device-hours", "pflop": "PFLOP"}
    remarks = [*remarks, on_v100s(paper)]
    Table(
        "table2", caption(size), cells, shown=shown, tail=tail, metrics=titles, first="stage", remarks=remarks
    ).publish(results)
    claims.publish(signs(found, paper), results, "table2_signs", "supplement Table 2", DECIDES)
    for stage in STAGES:
        if stage not in found:
            print(f"{stage} is not on record; this fills it: {COMMANDS[stage]}")


def signs(found: Mapping[str, Cost], paper: Mapping[tuple[str, str], float]) -> list[Sign]:
    """Claim that choosing assignments costs less wall time than the final tokenizer."""
    name, cited = f"{SHARE} is less than half of the wall time", f"{paper[SHARE, 'wall_hours']:.1f} %"
    share = share_of(found, "wall_hours")
    if share is None:
        return [Sign(name, cited, "-", UNKNOWN)]
    return [Sign(name, cited, f"{share:.1f} %", HOLDS if share < HALF else FAILS)]


def share_of(found: Mapping[str, Cost], measure: str) -> float | None:
    """Return the share of the first three stages in percent; None if one of the four is unknown."""
    held = [getattr(found[stage], measure) for stage in STAGES if stage in found]
    return 100 * sum(held[:3]) / sum(held) if len(held) == len(STAGES) and None not in held else None


def costs(results: Path, size: str) -> tuple[dict[str, Cost], list[str]]:
    """Return the recorded stages, each based on the previous one, and remarks on their numbers."""
    folder, found, remarks = results / "records", {}, [UNCOUNTED]
    proxy = proxy_record(results, size)
    if proxy is None:
        return {}, [*remarks, f"no record is of results/checkpoints/proxy-{size}.safetensors: nothing to rest on"]
    found["stage 1"] = training_cost(results, proxy)
    # Parents decide what belongs together: a proxy that the finals depend on counts, even if it was retrained since.
    every = records.query(folder, "stage3_router", size, superseded=True)
    routers = [r for r in every if _parent(r, "tokenizer") == proxy.model["sha256"]]
    finals = [r for r in records.query(folder, "stage4_final", size) if _parent(r, "router")]
    shas = {router.model["sha256"] for router in routers}
    final = next((r for r in reversed(finals) if _parent(r, "router") in shas), None)
    router = next((r for r in routers if final and r.model["sha256"] == _parent(final, "router")), None)
    router = router or (routers[-1] if routers else None)
    if router is not None:
        found["stage 3"] = training_cost(results, router)
        curated = curation_cost(results, size, router, remarks)
        if curated is not None:
            found["stage 2"] = curated
    if final is not None:
        found["stage 4"] = training_cost(results, final)
    uncounted = [stage for stage, cost in sorted(found.items()) if cost.pflop is None]
    remarks += [f"{stage}: {found[stage].record.id} does not tell its network, {NOT_TOLD}" for stage in uncounted]
    return dict(sorted(found.items())), remarks


def proxy_record(results: Path, size: str) -> Record | None:
    """Find the newest stage 1 record of the proxy in `results`."""
    path = results / "checkpoints" / f"proxy-{size}.safetensors"
    if not path.exists():
        return None
    sha256 = sha256_file(path)
    made = records.query(results / "records", "stage1_proxy", size)
    return next((r for r in reversed(made) if sha256 in {a.sha256 for a in r.artifacts.values()}), None)


def training_cost(results: Path, record: Record) -> Cost:
    """Return the cost of a training from its own record."""
    seconds = record.environment["wall_seconds"]
    hours = None if seconds is None else seconds / 3600
    totals, mean = None, record.metrics.get("mean_tokens")
    if record.kind == "stage4_final" and mean is not None:
        totals = np.array([mean.value])
    return Cost(record, hours, None if hours is None else hours * devices(record), pflop(results, record, totals))


def pflop(results: Path, record: Record, totals: np.ndarray | None = None) -> float | None:
    """Return a stage's operations in 1e15, counted with the network it was made with; None if that is unknown."""
    of = networks.router_of if record.kind == "stage3_router" else networks.tokenizer_of
    network = of(record, results)
    if network is None:
        return None
    return flops.flops_of_training(record.kind, network, record.config, totals) / 1e15


def curation_cost(results: Path, size: str, router: Record, remarks: list[str]) -> Cost | None:
    """Return the cost of the candidate table a router was trained on.

    If several processes scored parts of it, only the one that merged has a record. If that one scored nothing itself,
    the seconds per clip are those of the other tables under the same tokenizer, and a remark says so.
    """
    made = records.query(results / "records", "stage2_curation", size, superseded=True)
    table = next((r for r in reversed(made) if r.model["table"] == _parent(router, "train_table")), None)
    if table is None:
        return None
    paced = [r for r in made if "seconds_per_clip" in r.metrics and _same_work(r, table)]
    own = [r for r in paced if r.id == table.id]
    clips = table.protocol["clips"]
    operations = pflop(results, table)
    if not paced:
        remarks.append(
            f"stage 2: {table.id} merged {clips} clips that other processes scored; no record has their time"
        )
        return Cost(table, None, None, operations)
    shown = own or paced
    seconds = float(np.mean([r.metrics["seconds_per_clip"].value for r in shown]))
    processes = max(int(r.config["shard"].partition("/")[2]) for r in shown)
    if not own:
        remarks.append(
            f"stage 2: {table.id} says {table.environment['wall_seconds']} s, which is the merge alone; its {clips} "
            f"clips were scored by processes without a record, taken here at the {seconds:.2f} s a clip of "
            f"{', '.join(r.id for r in shown)}, {processes} processes side by side"
        )
    hours = clips * seconds / 3600
    return Cost(table, hours / processes, hours * devices(shown[0]), operations)


def devices(record: Record) -> int:
    """Return the factor for hours: one GPU, or the threads of a process without one."""
    return 1 if record.config["device"] == "cuda" else int(record.environment["threads"])


def to_cells(found: Mapping[str, Cost], paper: Mapping[tuple[str, str], float], size: str) -> list[Cell]:
    """Return one cell per stage and measure, and the share of the first three stages if all four are recorded."""
    cells = []
    for stage in STAGES:
        cost = found.get(stage)
        for measure, unit in MEASURES.items():
            value = getattr(cost, measure) if cost else None
            cells.append(_cell(stage, measure, paper, value, unit, [cost.record] if cost else [], size))
    for measure in MEASURES:
        value = share_of(found, measure)
        cells.append(_cell(SHARE, measure, paper, value, "%", [cost.record for cost in found.values()], size))
    return cells


def published(paper: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return the paper's hours, with GPU-hours and their share, which it does not print: hours times GPUs."""
    values = {key: value for key, value in paper.items() if key[1] == "wall_hours"}
    spent = {stage: paper[stage, "wall_hours"] * paper[stage, "gpus"] for stage in STAGES}
    values |= {(stage, "device_hours"): hours for stage, hours in spent.items()}
    values[SHARE, "device_hours"] = 100 * (1 - spent["stage 4"] / sum(spent.values()))
    return values


def on_v100s(paper: Mapping[tuple[str, str], float]) -> str:
    """Compute how busy the paper's GPUs were in stage 1, by our operation count."""
    shape, batch = TokenizerConfig(), 128
    clips = paper["stage 1", "steps"] * batch
    operations = flops.tokenizer_operations(shape, shape.candidates.totals, training=True) * clips
    seconds = paper["stage 1", "wall_hours"] * 3600
    peak = flops.PEAKS["V100"] * paper["stage 1", "gpus"]
    share = flops.utilisation(operations, seconds, peak)
    return (
        f"by the same count the paper's stage 1 takes {operations / 1e15:,.0f} PFLOP, {share:.1%} of what its 64 V100s "
        "could do in 116 h in float16"
    )


def caption(size: str) -> str:
    return (
        f"Supplement Table 2, cost of the stages, ours at {size} size (paper, hours of V100s). Device-hours are hours "
        "times GPUs, without a GPU times threads. The share says how long each stage was trained, and ours were "
        "trained for other lengths than the paper's."
    )


def shown(cell: Cell) -> str:
    """Format as `ours (paper)`, the share in percent."""
    mark = " %" if cell.row == SHARE else ""
    ours = "-" if cell.ours is None else f"{cell.ours:,.3f}{mark}"
    return ours if cell.paper is None else f"{ours} ({cell.paper:,.1f}{mark})"


def tail(row: tables.Row) -> dict[str, str]:
    """Name the record of a stage's hours; for the share, those of the stages."""
    return {"record": "" if row[0].row == SHARE else next((cell.record for cell in row if cell.record), "-")}


def _cell(
    row: str,
    measure: str,
    paper: Mapping[tuple[str, str], float],
    value: float | None,
    unit: str,
    sources: list[Record],
    size: str,
) -> Cell:
    published_value = paper.get((row, measure))
    if value is None:
        return Cell(row, measure, published_value, None, unit, None, "paper-only", None)
    ids = " ".join(record.id for record in sources)
    return Cell(row, measure, published_value, value, unit, len(sources), size, ids)


def _parent(record: Record, role: str) -> str | None:
    parent: str | None = record.model.get("parents", {}).get(role)
    return parent


def _same_work(one: Record, other: Record) -> bool:
    """Whether the cost per clip was the same: same tokenizer, search, perceptual metric and precision."""
    keys = ("search", "perceptual", "bf16", "batch", "device")
    same = all(one.config.get(key) == other.config.get(key) for key in keys)
    return same and one.model["tokenizer"] == other.model["tokenizer"]
