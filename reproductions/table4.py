"""Supplement Table 4: image tokenizers, final ones at one length and under a router, and generators on both.

    python reproductions/table4.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/table4.py --data FOLDER_OR_CSV   reconstructions of your own images; seconds per image and row

Reads the records of `evatok.experiments.evaluate` and `sample` that `python -m evatok.experiments.make images` makes,
and writes results/tables/table4 and, with a verdict each, the paper's claims as results/tables/table4_signs.

With --data the final tokenizers that are found in results/checkpoints, or the folder `--checkpoints` names, are
measured on your images; it says first how long that takes, and resumes. Nothing is generated of them.

Expected (paper, ImageNet 256x256): LPIPS 0.2205 and rFID 1.22 at 256 tokens, 0.2455 and 1.46 at 205; gFID 4.72 at 256
generated tokens, 4.51 at 197.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evatok.reporting import claims, command_line, final_tables, image_tables, tables
from evatok.reporting.command_line import OwnClips

NAME = "table4"


def main(argv: list[str] | None = None) -> int:
    parser = command_line.with_own(command_line.parser(__doc__))
    asked = command_line.with_metrics(parser, image_tables.OWN_METRICS).parse_args(argv)
    with command_line.one_line(NAME, asked):
        if asked.data:
            from evatok.experiments.own_tables import measured

            publish(asked.results, measured(image_tables.TABLE, asked))
        else:
            image_tables.tell_missing(publish(asked.results))
    return 0


def publish(results: Path, own: OwnClips | None = None) -> image_tables.Chosen:
    """Write the table and its claims, for embedded images or a user's own; return their records."""
    chosen, name = image_tables.choose(results / "records", own), NAME
    if own:
        name += command_line.ending(own.name)
    cells = image_tables.to_cells(chosen, tables.paper_values(NAME))
    shown, tail = final_tables.shown, final_tables.tail
    tables.Table(name, image_tables.caption(chosen, own), cells, shown=shown, tail=tail).publish(results)
    claims.publish(image_tables.signs(chosen), results, f"{name}_signs", "supplement Table 4", claims.DECIDES)
    return chosen


if __name__ == "__main__":
    sys.exit(main())
