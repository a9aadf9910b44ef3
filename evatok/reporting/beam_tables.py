"""Table 3 of clips searched by a beam: rewards and regrets instead of percentiles, which a beam cannot determine."""

from __future__ import annotations

from pathlib import Path

from evatok.evaluation import beam_study
from evatok.evaluation.router_study import Comparison
from evatok.metrics import catalogue
from evatok.reporting import claims
from evatok.reporting.claims import NO_INTERVAL, RULE, Sign, around, verdict
from evatok.reporting.tables import Cell, Table
from evatok.storage.records import Record

COLUMNS = {
    "proxy_reward": "reward",
    "beam_regret": "regret against the beam's",
    "as_good_as_beam": "as good as the beam's, %",
    "mean_tokens": "tokens per clip",
}
DECIDES = (
    f"{RULE}. The half-interval after ± is 1.96 times the standard error, over clips, of the difference on each clip."
)


def publish(name: str, row: str, record: Record, results: Path, comparison: Comparison) -> None:
    """Write and print the table of a set by one reward, and its claims."""
    cells = to_cells(record, row)
    Table(name, caption(record), cells, shown, metrics=COLUMNS, right=("n",), remarks=remarks(record)).publish(results)
    found = [better(row, record, router) for router in comparison.routers]
    item = f"supplement Table 3 by a beam, at the operating point {comparison.name}"
    claims.publish(found, results, f"{name}_signs", item, DECIDES)


def to_cells(record: Record, row: str) -> list[Cell]:
    """The beam's row, the routers', and the controls."""
    cells = []
    names = dict.fromkeys(name.rpartition(".")[0] for name in record.metrics)
    routers = list(record.model["routers"])
    for name in (beam_study.BEAM, *routers, *beam_study.CONTROLS):
        for metric in COLUMNS if name in names else ():
            held = record.metrics.get(f"{name}.{metric}")
            if held is not None:
                told = (held.unit, held.n, record.status, record.id)
                cells.append(Cell(f"{row}/{name}", metric, None, held.value, *told, held.spread))
    return cells


def shown(cell: Cell) -> str:
    """Format a value with its standard error; tokens and shares without."""
    decimals = catalogue.of(cell.metric).decimals
    value = f"{cell.ours:.{decimals}f}"
    judged = cell.spread is not None and cell.metric in ("proxy_reward", "beam_regret")
    return f"{value} ± {cell.spread:.{decimals}f}" if judged else value


def caption(record: Record) -> str:
    told, beam = record.protocol, record.protocol["search"]
    weights = f"quality {told['metric']}, w_q = {told['w_q']:.3f}, w_l = {2 - told['w_q']:.3f}"
    return (
        f"Supplement Table 3 by a beam of width {beam['width']}, without percentiles; {record.status} size, {weights}. "
        "Mean proxy rewards, ± their standard error over clips."
    )


def remarks(record: Record) -> list[str]:
    """Explain the table's numbers and their limits."""
    visited = record.protocol["search"]["blocks_per_clip"]
    return [
        "Not told: the percentile, top-1 and top-5 of Table 3, and the one assignment that is best for all clips. They "
        f"need the scores of all candidates, and the beam reconstructed {visited['reconstructed']} of "
        f"{visited['of']} blocks per clip; `--search tree` measures them.",
        "Regret: the reward of the assignment that the beam found less that of the row's, mean over clips. The beam's "
        "is a lower bound of the best: the regret against the best is at least as large, and a negative one says that "
        "the row's assignments are better than what the beam found.",
    ]


def better(row: str, record: Record, router: str) -> Sign:
    """A router has a higher reward than the best uniform assignment of each clip."""
    metrics, decimals = record.metrics, catalogue.of("proxy_reward").decimals
    claim = f"{row}: {router} better than {beam_study.UNIFORM}, proxy reward"
    lead = metrics[f"{router}.reward_over_uniform"]
    half = None if lead.spread is None else 1.96 * lead.spread
    remark = NO_INTERVAL if half is None else f"paired ± {half:.{decimals}f}"
    both = [metrics[f"{name}.proxy_reward"].value for name in (router, beam_study.UNIFORM)]
    told = " against ".join(f"{value:.{decimals}f}" for value in both)
    return Sign(claim, "-", f"{told} ({remark})", verdict(around(lead.value, half)))
