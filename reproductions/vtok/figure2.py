"""VTok Fig. 2 on moving-shapes: prompts, samples, a question about each and the ruler's answers, still and moving.

    python reproductions/vtok/figure2.py            seconds; no GPU, no download

Writes results/figures/vtok_figure2.{png,mp4}: real clips of the first prompts of moving-shapes-align above the samples
of each row that is on file (results/samples/vtok-ROW.npz, which `python reproductions/vtok/generation.py` writes). The
paper's figure shows samples of WAN2.2 with and without VTok.

Expected (paper): with VTok's tokens a clip does what its prompt says more often than without.
"""

from __future__ import annotations

import sys

import numpy as np

from evatok.alignment import triples
from evatok.evaluation import protocols
from evatok.reporting import vtok_figures
from evatok.reporting.command_line import results_of
from evatok.reporting.vtok_generated import MADE_BY_NAME
from evatok.storage.environment import REPOSITORY

COUNT = 6
ROWS = ("none", "frames8", "vtok")


def prompts() -> vtok_figures.Prompts:
    """Return the first prompts with their questions, answers and real clips."""
    protocol = protocols.get(triples.ONE_EACH)
    asked, real = triples.triples_of(protocol, COUNT), protocols.clips_of(protocol, limit=COUNT)
    first = [questions[0] for questions in asked.questions]
    texts, answers = [question.text for question in first], [question.answer for question in first]
    return vtok_figures.Prompts(asked.prompts, texts, answers, np.array(real.clips))


def main(argv: list[str] | None = None) -> int:
    files = {row: REPOSITORY / "results" / "samples" / f"vtok-{row}.npz" for row in ROWS}
    found = {MADE_BY_NAME[row].label: path for row, path in files.items() if path.exists()}
    with results_of("vtok_figure2", __doc__, argv) as results:
        for path in vtok_figures.draw(prompts(), found, results / "figures"):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
