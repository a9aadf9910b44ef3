"""VideoFlexTok's comparisons at each length: of two tokenizers (Figures 9 and 10, the second stage), and Figure 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from evatok.reporting import claims, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Chosen, Row
from evatok.reporting.flextok import FlexSpec, FlexTable
from evatok.reporting.flextok_generation import CEILING, GeneratorSpec, GeneratorTable

KEPT = (1, 4, None)
"""Tokens per latent frame; None: all."""
DRAWN = {
    "class_consistency": {"samples": "class_consistency", "reconstructions": CEILING},
    "gfvd": {"samples": "gfvd"},
}
"""For each panel of Figure 7, what of the clips is drawn, and its metric."""


@dataclass(frozen=True)
class Variant:
    """A tokenizer: its name, facts of its training, and the keys a command takes for it (see FlexSpec)."""

    name: str
    trained: Mapping[str, Any]
    keys: str = ""

    def at(self, tokens: int | None) -> str:
        """Return the name of its row at a length."""
        return f"{self.name}, {flextok.counted(tokens)}"


def lengths_table(name: str, item: str, better: Variant, other: Variant, said: str, stage: str = "stage1") -> FlexTable:
    """Compare both at every length, with claims that `better` has the lower rFVD; `said`: what the paper says."""

    def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
        return [claims.better(rows, better.at(k), other.at(k), "rfvd", said) for k in KEPT]

    return FlexTable(
        name=name,
        item=item,
        specs=tuple(
            FlexSpec(variant.at(tokens), variant.trained, tokens=tokens, keys=variant.keys)
            for tokens in KEPT
            for variant in (better, other)
        ),
        columns=("psnr", "l1", "rfvd", "motion_ratio", "motion_correlation"),
        claims_of=claims_of,
        stage=stage,
    )


def generation_table(
    name: str, item: str, better: Variant, other: Variant, claims_at: Mapping[int | None, Sequence[tuple[str, str]]]
) -> GeneratorTable:
    """Compare time-first generators on both tokenizers at every length, with claims that `better` is better.

    Args:
        claims_at: by tokens per latent frame, the claimed metrics and what the paper says about each.
    """

    def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
        return [
            claims.better(rows, better.at(kept), other.at(kept), metric, said)
            for kept, metrics in claims_at.items()
            for metric, said in metrics
        ]

    specs = tuple(
        GeneratorSpec(variant.at(kept), variant.trained, kept=kept) for kept in KEPT for variant in (better, other)
    )
    return GeneratorTable(name=name, item=item, specs=specs, claims_of=claims_of)


def frame_of(trainings: Mapping[int, Chosen], grid: str) -> pd.DataFrame:
    """Return a line per metric, row and training: panel, series, tokens per latent frame, value, and its records.

    Args:
        trainings: rows by the steps of the tokenizers' training.
        grid: name of the 3D grid's row, the others being of registers.
    """
    lines = []
    for (panel, told), (steps, chosen) in product(DRAWN.items(), trainings.items()):
        for (clips, metric), (name, row) in product(told.items(), chosen.rows.items()):
            if (value := row.value(metric)) is not None:
                record, level = row.records[-1], name == grid
                series = f"{'3D grid' if level else 'registers'}, {steps:,} steps"
                point = (record.model["kept"], value.value, value.n, record.status, " ".join(value.ids))
                lines.append((panel, series, clips, level, *point))
    columns = ["metric", "series", "clips", "at_all", "tokens", "value", "n", "status", "record"]
    return pd.DataFrame(lines, columns=columns)
