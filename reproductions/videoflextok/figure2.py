"""VideoFlexTok Fig. 2 in numbers: what more tokens per latent frame bring, from none to all, sampled and in one step.

    python reproductions/videoflextok/figure2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` of the tokenizer that has most of them, and writes
results/figures/videoflextok_figure2.{svg,csv}. 0 tokens, a control that the paper lacks, are samples that no clip had
a say in; one step is the mean of what the tokens leave open.

Expected (paper, pictures): every doubling adds detail, and every length decodes to a plausible clip.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evatok.pictures import figures
from evatok.reporting import final_tables, flextok
from evatok.reporting.claims import Sign
from evatok.storage.records import Record

ITEM = "VideoFlexTok Figure 2, quality at every number of tokens"
PANELS = {"psnr": "PSNR (dB)", "l1": "L1", "rfvd": "rFVD"}
STEPS = (1, flextok.SAMPLED)
CHECKPOINT = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"


def claims_of(found: Sequence[Record]) -> list[Sign]:
    """Every doubling of the tokens improves samples; samples are perceptually better than one step."""
    rows = flextok.rows_of(found)
    levels = sorted({tokens for tokens, steps in rows if steps == flextok.SAMPLED})
    signs = []
    for fewer, more in itertools.pairwise(levels):
        for metric in PANELS:
            better, than = (more, flextok.SAMPLED), (fewer, flextok.SAMPLED)
            signs.append(flextok.compare(rows, better, than, metric, "pictures: more detail with more tokens"))
    for tokens in levels[1:]:
        signs.append(flextok.compare(rows, (tokens, flextok.SAMPLED), (tokens, 1), "rfvd", "plausible at every length"))
    return signs


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """A panel per metric, a line per number of steps."""
    with figures.style():
        figure = Figure(figsize=(3.0 * len(PANELS), 2.6))
        for axes, (metric, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            for steps, group in frame[frame["metric"] == metric].groupby("flow_steps"):
                axes.plot(group["tokens"], group["value"], marker="o", label=f"{steps} step{'s' if steps != 1 else ''}")
            axes.set_xscale("symlog", base=2, linthresh=1)
            axes.set_xlabel("tokens per latent frame")
            axes.set_ylabel(label)
        figure.axes[0].legend()
        figures.save(figure, folder, "videoflextok_figure2", frame)


def run(results: Path) -> None:
    found = [
        r for r in flextok.of_one_tokenizer(flextok.measured(results / "records")) if r.model["flow_steps"] in STEPS
    ]
    if found:
        frame = flextok.frame_of(found, tuple(PANELS))
        draw(frame, results / "figures")
        print(frame.pivot_table(index=["flow_steps", "tokens"], columns="metric", values="value").to_markdown() + "\n")
    flextok.publish_claims(claims_of(found), "videoflextok_figure2", ITEM, results)
    final_tables.tell(flextok.missing_points(found, STEPS, CHECKPOINT))


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure2", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
