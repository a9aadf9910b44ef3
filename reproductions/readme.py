"""Write results/README.md and the README's table of claims from results/tables/*.csv; a test keeps them in sync.

python reproductions/readme.py            seconds; no GPU, no download, no PyTorch

The README itself is left alone if another results folder is given.
"""

from __future__ import annotations

import sys

from evatok.reporting import overview
from evatok.reporting.command_line import results_of
from evatok.storage import records
from evatok.storage.files import replacing


def main(argv: list[str] | None = None) -> int:
    with results_of("readme", __doc__, argv) as given:
        results = given.resolve()
        pages = {results / "README.md": overview.page(results / "tables")}
        if results == records.REPOSITORY / "results":
            readme = records.REPOSITORY / "README.md"
            pages[readme] = overview.with_highlights(readme.read_text(encoding="utf-8"), results / "tables")
        for path, text in pages.items():
            with replacing(path) as partial:
                partial.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
