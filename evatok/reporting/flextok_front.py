"""Figure 12: gFVD against the operations of generator and decoder together, and its Pareto front.

Points are `sample` records of one generator at several numbers of tokens and flow steps, drawn and measured equally,
without guidance of either network. It was trained on all tokens of the usual tokenizer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from evatok.reporting import claims
from evatok.reporting.claims import Sign
from evatok.reporting.flextok_generation import flow_guided, of_tokenizer, sampled_alike, taught_all
from evatok.storage.records import Record


def points_of(found: Sequence[Record]) -> list[Record]:
    """Return records of the time-first generator with the most points (tokens, steps); the newest per point."""
    points: dict[tuple[Any, ...], dict[tuple[int, int], Record]] = defaultdict(dict)
    for record in found:
        model = record.model
        plain = model["guidance"] == 1 and not flow_guided(record)
        usual = model["facts"]["order"] == "time-first" and taught_all(record) and of_tokenizer(record)
        if usual and plain and "gfvd" in record.metrics:
            points[(model["sha256"], *sampled_alike(record))][(model["kept"], model["flow_steps"])] = record
    if not points:
        return []
    best = max(points.values(), key=lambda held: (len(held), max(record.created for record in held.values())))
    return [best[point] for point in sorted(best)]


def frame_of(found: Sequence[Record]) -> pd.DataFrame:
    """Return a line per point: tokens, steps, operations per clip, gFVD, and whether it is on the Pareto front."""
    lines = []
    for record in found:
        model, metric = record.model, record.metrics["gfvd"]
        flops = (model["generator_flops"], model["decoder_flops"])
        point = (model["kept"], model["flow_steps"], *flops, sum(flops))
        lines.append((*point, metric.value, metric.n, record.status, record.id))
    columns = ["tokens", "flow_steps", "generator_flops", "decoder_flops", "flops", "gfvd", "n", "status", "record"]
    frame = pd.DataFrame(lines, columns=columns)
    on_front = [
        not ((frame["flops"] <= row.flops) & (frame["gfvd"] < row.gfvd)).any() for row in frame.itertuples(index=False)
    ]
    return frame.assign(on_front=on_front)


def claims_of(found: Sequence[Record]) -> list[Sign]:
    """Claim: no point with all tokens is on the front.

    Undecided, as the points are of a single generator and have no interval; not measured with fewer than two lengths.
    """
    name, paper = "no point of the Pareto front has all tokens", "at every budget the best has fewer (plot)"
    if len({record.model["kept"] for record in found}) < 2:
        return [Sign(name, paper, "-", claims.UNKNOWN)]
    frame = frame_of(found)
    front = frame[frame["on_front"]].sort_values("flops")
    told = ", ".join(f"{row.tokens} x {row.flow_steps}" for row in front.itertuples(index=False))
    return [Sign(name, paper, f"front (tokens x steps): {told}; {claims.NO_INTERVAL}", claims.UNSURE)]
