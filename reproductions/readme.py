"""Writes the README's tables of results and of speed from results/tables/*.csv; a test holds them together.

python reproductions/readme.py            seconds; no GPU, no download, no PyTorch
"""

from __future__ import annotations

import sys

from evatok.reporting import overview
from evatok.reporting.final_tables import results_folder
from evatok.storage import records


def main(argv: list[str] | None = None) -> int:
    results = results_folder(__doc__, argv)
    path = records.REPOSITORY / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(overview.with_tables(text, results / "tables"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
