"""VideoFlexTok Fig. 2 in numbers: the gain from more tokens per latent frame, from none to all, many or one step.

    python reproductions/videoflextok/figure2.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` of stage 2's tokenizer, under both protocols of the validation
clips (pixels and rFVD; image features), and writes results/figures/videoflextok_figure2.{svg,csv}. 0 tokens, a
control that the paper lacks, are unconditional samples; one step is the mean of what the tokens leave open. Clips of
`evatok.experiments.videoflextok_shown` become videoflextok_figure2_clips.{png,webp}.

Expected (paper, pictures): every doubling adds detail, and every length decodes to a plausible clip.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from evatok.reporting import final_tables, flextok, flextok_curves, flextok_pictures
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import PROTOCOL
from evatok.storage.records import Record

ITEM = "VideoFlexTok Figure 2, quality at every number of tokens"
PANELS = {"psnr": "PSNR (dB)", "l1": "L1", "rfvd": "rFVD"}
FEATURE_PANELS = {"feature_agreement": "feature cosine", "feature_frechet": "feature Frechet"}
STEPS = (1, flextok.SAMPLED)
CHECKPOINT = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"


def claims_of(found: Sequence[Record], panels: Sequence[str], perceptual: str) -> list[Sign]:
    """Every doubling of the tokens improves samples; samples are perceptually better than one step."""
    rows = flextok.rows_of(found)
    levels = sorted({tokens for tokens, steps in rows if steps == flextok.SAMPLED})
    signs = []
    for fewer, more in itertools.pairwise(levels):
        for metric in panels:
            better, than = (more, flextok.SAMPLED), (fewer, flextok.SAMPLED)
            signs.append(flextok.compare(rows, better, than, metric, "pictures: more detail with more tokens"))
    for tokens in levels[1:]:
        sampled = (tokens, flextok.SAMPLED)
        signs.append(flextok.compare(rows, sampled, (tokens, 1), perceptual, "plausible at every length"))
    return signs


def run(results: Path) -> None:
    found, seen = _points(results / "records")
    if found or seen:
        frame = flextok.frame_of([*found, *seen], (*PANELS, *FEATURE_PANELS))
        flextok_curves.draw(frame, PANELS | FEATURE_PANELS, results / "figures", "videoflextok_figure2")
        print(frame.pivot_table(index=["flow_steps", "tokens"], columns="metric", values="value").to_markdown() + "\n")
    signs = claims_of(found, tuple(PANELS), "rfvd") + claims_of(seen, tuple(FEATURE_PANELS), "feature_frechet")
    flextok.publish_claims(signs, "videoflextok_figure2", ITEM, results, flextok.told_of([*found, *seen]))
    shown = flextok_pictures.draw(results, "videoflextok-reconstructed.npz", "videoflextok_figure2_clips")
    checkpoint = found[0].config["checkpoint"] if found else CHECKPOINT
    lacking = flextok.missing_points(found, STEPS, checkpoint)
    lacking += [] if shown else ["  python -m evatok.experiments.make videoflextok-shown"]
    final_tables.tell(lacking + flextok.missing_points(seen, STEPS, checkpoint, flextok.FEATURES))


def _points(folder: Path) -> tuple[list[Record], list[Record]]:
    """Return points of one tokenizer with samples or one step, by pixels and rFVD, and by image features."""
    pixels, features = (
        [record for record in flextok.measured(folder, protocol) if record.model["flow_steps"] in STEPS]
        for protocol in (PROTOCOL, flextok.FEATURES)
    )
    found, seen = flextok.of_one_tokenizer(pixels, features)
    return found, seen


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "figure2", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
