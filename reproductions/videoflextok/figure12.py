"""VideoFlexTok Fig. 12: quality against FLOPs, by tokens and flow steps: of the decoder, and with a generator.

    python reproductions/videoflextok/figure12.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` of the tokenizer that has most of them, and writes
results/figures/videoflextok_figure12.{svg,csv}: tokens are given, which isolates the effect of steps at each length.
The paper's plot, gFVD against the cost of generator and decoder together, is drawn from records of
`evatok.experiments.sample` (videoflextok_figure12_generation).

Expected (paper): at every budget, fewer than all tokens and several steps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evatok.reporting import final_tables, flextok, flextok_curves, flextok_front, flextok_generation
from evatok.reporting.claims import Sign
from evatok.reporting.flextok_curves import Axes
from evatok.storage.records import Record

ITEM = "VideoFlexTok Figure 12, the decoder's half"
STEPS = (1, 2, 5, 10, 20, 40)
CHECKPOINT = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"
DECODER = Axes("decoder_flops", "decoder GFLOPs per clip", "value", "rFVD")
GENERATION = Axes("flops", "GFLOPs per clip, generator and decoder", "gfvd", "gFVD")


def claims_of(found: Sequence[Record]) -> list[Sign]:
    """Several steps are better than one at every length."""
    rows = flextok.rows_of(found)
    levels = sorted({tokens for tokens, _ in rows if tokens})
    said = "the best points take several steps"
    return [flextok.compare(rows, (tokens, steps), (tokens, 1), "rfvd", said) for tokens in levels for steps in (5, 20)]


def run(results: Path) -> None:
    """Build both halves."""
    run_decoder(results)
    found = flextok_front.points_of(flextok_generation.sampled(results / "records"))
    if found:
        frame = flextok_front.frame_of(found)
        flextok_curves.draw_costs(frame, GENERATION, results / "figures", "videoflextok_figure12_generation")
    signs = flextok_front.claims_of(found)
    flextok.publish_claims(signs, "videoflextok_figure12_generation", "VideoFlexTok Figure 12", results)
    final_tables.tell([] if found else ["  python -m evatok.experiments.make videoflextok-generators-figures"])


def run_decoder(results: Path) -> None:
    """Build the half with given tokens."""
    (found,) = flextok.of_one_tokenizer(flextok.measured(results / "records"))
    frame = flextok.frame_of(found, ("rfvd",))
    if len(frame):
        flextok_curves.draw_costs(frame, DECODER, results / "figures", "videoflextok_figure12")
        print(frame.pivot_table(index="tokens", columns="flow_steps", values="value").to_markdown() + "\n")
    flextok.publish_claims(claims_of(found), "videoflextok_figure12", ITEM, results, flextok.told_of(found))
    final_tables.tell(flextok.missing_points(found, STEPS, CHECKPOINT))


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure12", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
