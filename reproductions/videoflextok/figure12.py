"""VideoFlexTok Fig. 12, the decoder's half: rFVD against the decoder's FLOPs, by tokens and flow steps.

    python reproductions/videoflextok/figure12.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` of the tokenizer that has most of them, and writes
results/figures/videoflextok_figure12.{svg,csv}. The paper plots gFVD against the cost of generator and decoder
together; here tokens are given, so that only what steps buy at each length is seen.

Expected (paper): at every budget, fewer than all tokens and several steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evatok.pictures import figures
from evatok.reporting import final_tables, flextok
from evatok.reporting.claims import Sign
from evatok.storage.records import Record

ITEM = "VideoFlexTok Figure 12, the decoder's half"
STEPS = (1, 2, 5, 10, 20, 40)
CHECKPOINT = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"


def claims_of(found: Sequence[Record]) -> list[Sign]:
    """Several steps are better than one at every length."""
    rows = flextok.rows_of(found)
    levels = sorted({tokens for tokens, _ in rows if tokens})
    said = "the best points take several steps"
    return [flextok.compare(rows, (tokens, steps), (tokens, 1), "rfvd", said) for tokens in levels for steps in (5, 20)]


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """rFVD over FLOPs, a line per length."""
    with figures.style():
        figure = Figure(figsize=(4.4, 3.0))
        axes = figure.subplots()
        for tokens, group in frame.groupby("tokens"):
            ordered = group.sort_values("decoder_flops")
            axes.plot(ordered["decoder_flops"] / 1e9, ordered["value"], marker="o", label=f"{tokens}")
        axes.set_xscale("log")
        axes.set_xlabel("decoder GFLOPs per clip")
        axes.set_ylabel("rFVD")
        axes.legend(title="tokens per latent frame")
        figures.save(figure, folder, "videoflextok_figure12", frame)


def run(results: Path) -> None:
    found = flextok.of_one_tokenizer(flextok.measured(results / "records"))
    frame = flextok.frame_of(found, ("rfvd",))
    if len(frame):
        draw(frame, results / "figures")
        print(frame.pivot_table(index="tokens", columns="flow_steps", values="value").to_markdown() + "\n")
    flextok.publish_claims(claims_of(found), "videoflextok_figure12", ITEM, results)
    final_tables.tell(flextok.missing_points(found, STEPS, CHECKPOINT))


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure12", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
