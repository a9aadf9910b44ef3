"""Writes the README's tables of results and of speed from results/tables/*.csv; a test holds them together.

python reproductions/readme.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # reproductions/ and benchmarks/ are not installed

from benchmarks import writing
from evatok import records

OPENING, CLOSING = "<!-- {}: rewritten by python reproductions/readme.py -->", "<!-- end of {} -->"
ITEMS = (
    *("table3", "main_table1", "main_table2", "main_table3", "main_table4", "main_table5", "table1", "table2"),
    "main_figure4",
)
"""Tables shown, each named as its script; one that was never written is left out."""
BESIDE_THE_PAPER = {"validation/pyramid_router", "unseen/pyramid_router"}
"""Rows that are shown although the paper has none of them."""
METRICS = {"percentile": "proxy-reward percentile", "top1": "top-1", "top5": "top-5"}


def main() -> int:
    path = records.REPOSITORY / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(with_tables(text, records.REPOSITORY / "results" / "tables"), encoding="utf-8")
    return 0


def with_tables(text: str, folder: Path) -> str:
    """The README with its tables made anew."""
    there = [name for name in ITEMS if (folder / f"{name}.csv").exists()]
    lines = pd.concat([shown(pd.read_csv(folder / f"{name}.csv"), name) for name in there])
    text = _replaced(text, "results", lines)
    return _replaced(text, "speed", writing.worth_showing(folder)) if (folder / "speed.csv").exists() else text


def _replaced(text: str, name: str, lines: pd.DataFrame) -> str:
    """The text with the table between the marks of that name exchanged."""
    opening, closing = OPENING.format(name), CLOSING.format(name)
    before, _, rest = text.partition(opening)
    _, _, after = rest.partition(closing)
    return f"{before}{opening}\n{lines.to_markdown(index=False, disable_numparse=True)}\n{closing}{after}"


def shown(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """what | paper | ours | record | script, one line for each value of the paper that was measured here."""
    kept = table[table["ours"].notna() & (table["paper"].notna() | table["row"].isin(BESIDE_THE_PAPER))]
    lines = [
        {
            "what": f"{line['row']}, {METRICS.get(line['metric'], line['metric'])}{_in_brackets(line['unit'])}",
            "paper": _number(line["paper"]),
            "ours": _number(line["ours"]),
            "record": f"`{line['record']}`",
            "script": f"`reproductions/{name}.py`",
        }
        for line in kept.to_dict("records")
    ]
    return pd.DataFrame(lines)


def _in_brackets(unit: object) -> str:
    return f" ({unit})" if isinstance(unit, str) and unit else ""


def _number(value: float) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
