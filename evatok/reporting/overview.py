"""The tables of README: what is measured here beside what the papers print, and what of the speeds is worth showing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evatok.metrics import catalogue
from evatok.reporting import speed

OPENING, CLOSING = "<!-- {}: rewritten by python reproductions/readme.py -->", "<!-- end of {} -->"
ITEMS: dict[str, tuple[str, ...]] = {
    "table3": ("percentile", "top1", "top5"),
    "table3_wq1.2": ("percentile", "top1", "top5"),
    "main_table1": ("psnr", "rfvd", "rtokens"),
    "main_table2": ("gfvd", "gtokens"),
    "main_table4": ("gfvd", "gtokens"),
    "class_consistency": ("class_consistency_balanced", "class_consistency_reconstructed_balanced", "gtokens"),
    "table2": ("wall_hours",),
    "main_figure4": ("saving_rfvd", "saving_st_lpips", "saving_psnr"),
}
"""Tables shown, each named as its script and perhaps an operating point, and of them which metrics; one that was never
written is left out."""
BESIDE_THE_PAPER = {
    *(
        f"{clips}/{row}"
        for clips in ("validation", "unseen")
        for row in ("pyramid_router", "best_fixed", "adaptok_row", "infotok", "random")
    ),
    *("fixed length", "EVATok, fewer given tokens", "games, uniform", "games, router"),
}
"""Rows that are shown although the paper has none of them."""
POINTS = {"table3": "w_q solved for", "table3_wq1.2": "w_q = 1.2"}
"""What tells rows of the same name apart."""


def with_tables(text: str, folder: Path) -> str:
    """The README with its tables made anew."""
    there = [name for name in ITEMS if (folder / f"{name}.csv").exists()]
    lines = pd.concat([shown(pd.read_csv(folder / f"{name}.csv"), name) for name in there])
    text = _replaced(text, "results", lines)
    return _replaced(text, "speed", speed.worth_showing(folder)) if (folder / "speed.csv").exists() else text


def _replaced(text: str, name: str, lines: pd.DataFrame) -> str:
    """The text with the table between the marks of that name exchanged."""
    opening, closing = OPENING.format(name), CLOSING.format(name)
    before, _, rest = text.partition(opening)
    _, _, after = rest.partition(closing)
    return f"{before}{opening}\n{lines.to_markdown(index=False, disable_numparse=True)}\n{closing}{after}"


def shown(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """what | paper | ours | record | script, one line for each value of the paper that was measured here."""
    kept = table[table["ours"].notna() & table["metric"].isin(ITEMS[name])]
    kept = kept[kept["paper"].notna() | kept["row"].isin(BESIDE_THE_PAPER)]
    lines = [
        {
            "what": _point_of(name) + f"{line['row']}, {catalogue.of(line['metric']).label}"
            f"{_in_brackets(line['unit'])}",
            "paper": _number(line["paper"]),
            "ours": _number(line["ours"]),
            "record": f"`{line['record']}`",
            "script": f"`reproductions/{name.partition('_wq')[0]}.py`",
        }
        for line in kept.to_dict("records")
    ]
    return pd.DataFrame(lines)


def _point_of(table: str) -> str:
    return f"{POINTS[table]}: " if table in POINTS else ""


def _in_brackets(unit: object) -> str:
    return f" ({unit})" if isinstance(unit, str) and unit not in ("", "tokens") else ""


def _number(value: float) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
