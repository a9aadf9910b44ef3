"""VideoFlexTok Fig. 12: quality against FLOPs, by tokens and flow steps: of the decoder, and with a generator.

    python reproductions/videoflextok/figure12.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` of the tokenizer that has most of them, and writes
results/figures/videoflextok_figure12.{svg,csv}: tokens are given, so that only what steps buy at each length is seen.
The paper's plot, gFVD against the cost of generator and decoder together, is drawn from records of
`evatok.experiments.sample` (videoflextok_figure12_generation).

Expected (paper): at every budget, fewer than all tokens and several steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evatok.pictures import figures
from evatok.reporting import final_tables, flextok, flextok_front, flextok_generation
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


def draw_generation(frame: pd.DataFrame, folder: Path) -> None:
    """gFVD over all FLOPs, a line per length, points of the front filled."""
    with figures.style():
        figure = Figure(figsize=(4.4, 3.0))
        axes = figure.subplots()
        for tokens, group in frame.groupby("tokens"):
            ordered = group.sort_values("flops")
            axes.plot(ordered["flops"] / 1e9, ordered["gfvd"], marker="o", label=f"{tokens}")
        front = frame[frame["on_front"]].sort_values("flops")
        axes.plot(front["flops"] / 1e9, front["gfvd"], color="black", linestyle=":", label="front")
        axes.set_xscale("log")
        axes.set_xlabel("GFLOPs per clip, generator and decoder")
        axes.set_ylabel("gFVD")
        axes.legend(title="tokens per latent frame")
        figures.save(figure, folder, "videoflextok_figure12_generation", frame)


def run(results: Path) -> None:
    """Both halves."""
    run_decoder(results)
    found = flextok_front.points_of(flextok_generation.sampled(results / "records"))
    if found:
        draw_generation(flextok_front.frame_of(found), results / "figures")
    signs = flextok_front.claims_of(found)
    flextok.publish_claims(signs, "videoflextok_figure12_generation", "VideoFlexTok Figure 12", results)
    final_tables.tell([] if found else ["  python -m evatok.experiments.make videoflextok-generators-figures"])


def run_decoder(results: Path) -> None:
    """The half of given tokens."""
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
