"""Whether a generated clip shows the requested class: games, on the fixed-length and the adaptive tokenizer.

    python reproductions/class_consistency.py      seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.sample` under the protocol embedded-games-generation. The papers have no such
table (VideoFlexTok's alignment score is its relative): a classifier trained on real clips counts the samples in which
it recognises the requested game, beside the same share of real clips and of their reconstructions, which no generator
can be expected to exceed. Games can be told apart from any frame, whereas the motions of main Table 2 are lost in
toy-size reconstructions. One tokenizer, the proxy, encodes both rows: only it was trained on games for long enough.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from evatok.reporting import claims, final_rows, generation_claims, generation_tables
from evatok.reporting.claims import Sign
from evatok.reporting.generation_rows import (
    CLASS,
    OF_CONSISTENCY,
    OF_TOKENIZER,
    RECONSTRUCTION,
    GeneratorTable,
    Task,
    adaptive,
    fixed,
    of_generator,
)

FIXED, ADAPTIVE = "games, uniform", "games, router"
COLUMNS = {
    "psnr": (RECONSTRUCTION, "psnr", 1.0, "dB"),
    **{name: OF_TOKENIZER[name] for name in ("rfvd", "rtokens")},
    **of_generator(CLASS),
    **OF_CONSISTENCY,
}
GAMES = Task(
    sampled=("embedded-games-generation",),
    reconstructed="embedded-unseen",
    tokenizer="results/checkpoints/proxy-toy-motion.safetensors",
    train=("data=arcade-seen", "label=game"),
    take=("protocol=embedded-games-generation", "classifier=results/checkpoints/classifier-toy-games.safetensors"),
)
TABLE = GeneratorTable(
    name="class_consistency",
    item="Class consistency of generated games",
    specs=(fixed(FIXED), adaptive(ADAPTIVE)),
    columns=tuple(COLUMNS),
    task=GAMES,
    published=False,
)


def paper_claims(rows: Mapping[str, final_rows.Row]) -> list[Sign]:
    """The class is followed above chance, and equally well with fewer tokens."""
    return [
        *(generation_claims.class_is_followed(rows, name) for name in rows),
        claims.better(rows, ADAPTIVE, FIXED, "class_consistency_balanced", "-", or_equal=True),
        generation_claims.fewer_tokens(rows, ADAPTIVE, FIXED, "-"),
        claims.better(rows, ADAPTIVE, FIXED, "gfvd", "-", or_equal=True),
        generation_claims.time_follows_tokens(rows, ADAPTIVE, FIXED),
    ]


def main(argv: list[str] | None = None) -> int:
    return generation_tables.main(TABLE, COLUMNS, paper_claims, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
