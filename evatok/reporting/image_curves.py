"""Supplement Figure 7: quality of images against tokens, for uniform assignments, best rewards and routers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evatok.metrics import catalogue
from evatok.reporting import curve_claims
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, UNSURE, Sign
from evatok.storage.records import Record

SETS = {"images": ("images", "validation")}
PANELS = ("st_lpips_alex", "rfd_efficientnet", "psnr")
"""The paper's panels are LPIPS, FID and PSNR."""
MARGINAL = 20.0
"""Percent of the tokens: a smaller saving at equal quality counts as marginal. On videos the paper saves 42 to 56."""


def signs(held: Mapping[str, Record], row: str = "images") -> list[Sign]:
    """Return the claims about every panel: best rewards slightly ahead of uniform, routers near the best rewards."""
    found = []
    for metric in PANELS:
        record = held.get(metric)
        frame = None if record is None else curve_claims.frame_of(record, row)
        model: Mapping[str, Any] = {} if record is None else record.model
        own = {} if frame is None else dict(list(frame[frame["metric"] == metric].groupby("rule", sort=False)))
        groups = {str(rule): group for rule, group in own.items()}
        where, above = f"{row}, {catalogue.of(metric).label}", "max-proxy-reward above uniform (suppl. Fig. 7)"
        pair = ("max_reward", "uniform")
        found += [
            curve_claims.ahead(where, groups, pair, above, metric, model.get("leads", {})),
            marginal(where, model.get("savings", {}), metric),
            curve_claims.near(where, groups, metric, model.get("gaps", {})),
        ]
    return found


def marginal(where: str, savings: Mapping[str, Any], metric: str) -> Sign:
    """Best rewards save few tokens at the uniform quality, judged by the whole interval of the saving."""
    name = f"{where}: max_reward saves less than {MARGINAL:.0f} % at uniform's quality"
    paper = "the gain is marginal on images (suppl. H)"
    found = savings.get("max_reward", {}).get(metric)
    if found is None:
        return Sign(name, paper, "-", UNKNOWN)
    low, high = found["low"], found["high"]
    verdict = HOLDS if high is not None and high < MARGINAL else UNSURE
    if low is not None and low > MARGINAL:
        verdict = FAILS
    return Sign(name, paper, curve_claims.saving_in_words(found), verdict)


def tell_missing(held: Mapping[str, Record]) -> None:
    """Print the command that measures what no record holds."""
    missing = [metric for metric in PANELS if metric not in held]
    if missing:
        print(f"images: no {', '.join(missing)}; python -m evatok.experiments.make image-curves")
