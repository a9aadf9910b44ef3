"""Writes the README's table of results from results/tables/*.csv; a test holds the two together.

python reproductions/readme.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from evatok import records

OPENING = "<!-- results: rewritten by python reproductions/readme.py -->"
CLOSING = "<!-- end of results -->"
SCRIPTS = {"table3": "reproductions/table3.py"}
METRICS = {"percentile": "proxy-reward percentile", "top1": "top-1", "top5": "top-5"}


def main() -> int:
    path = records.REPOSITORY / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(with_results(text, records.REPOSITORY / "results" / "tables"), encoding="utf-8")
    return 0


def with_results(text: str, folder: Path) -> str:
    """The README with its table of results made anew."""
    before, _, rest = text.partition(OPENING)
    _, _, after = rest.partition(CLOSING)
    parts = [markdown(pd.read_csv(folder / f"{name}.csv"), script) for name, script in SCRIPTS.items()]
    return f"{before}{OPENING}\n" + "\n\n".join(parts) + f"\n{CLOSING}{after}"


def markdown(table: pd.DataFrame, script: str) -> str:
    """paper | ours | record | script, one line a row and metric."""
    lines = pd.DataFrame(
        {
            "what": table["row"] + ", " + table["metric"].map(METRICS) + " (" + table["unit"] + ")",
            "paper": table["paper"].map(_number),
            "ours": table["ours"].map(_number),
            "record": table["record"].map(lambda name: f"`{name}`" if isinstance(name, str) else "-"),
            "script": f"`{script}`",
        }
    )
    return lines.to_markdown(index=False, disable_numparse=True)


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
