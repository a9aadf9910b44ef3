"""Main Table 1: proxy and final tokenizers at equal training, under uniform (A) and the router's assignments (B).

    python reproductions/main_table1.py                        seconds; no GPU, no download, no PyTorch
    python reproductions/main_table1.py --data FOLDER_OR_CSV   the same on your own videos; seconds per clip and row

Reads the records of `evatok.experiments.evaluate`, on the validation clips and, as main_table1_unseen, on games that no
router was trained on. A1 and B1 are one tokenizer, trained under random assignments; A2 was trained under the uniform
one, B2 under the router's; "+VideoMAE" exchanges the transformer discriminator for the semantic one. Beneath the table,
and in results/tables/main_table1_signs, the paper's claims about these rows are judged as signs
(`evatok/reporting/claims.py`).

With --data every row's tokenizer found in results/checkpoints, or the `--checkpoints` folder, is measured on your
videos; the estimated time is printed first, and a rerun resumes. Rows without one show the paper's values.

Expected (paper, WebVid validation, 400k steps): rFVD 73, 63 and 13 for A1, A2, A2+VideoMAE; 50, 33 and 9.2 for the B
rows, with 29.6 % fewer tokens.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from evatok.reporting import claims, command_line, final_tables
from evatok.reporting.command_line import OwnClips
from evatok.reporting.final_rows import Spec, TableSpec


def _spec(name: str, assignment: str, discriminator: str, measured: str) -> Spec:
    return Spec(name, {"assignment": assignment, "discriminator": discriminator}, measured)


TABLE = TableSpec(
    name="main_table1",
    item="Main Table 1, proxy and final tokenizers under uniform and router assignments",
    specs=(
        _spec("A1", "random", "transformer", "uniform"),
        _spec("A2", "uniform", "transformer", "uniform"),
        _spec("A2+VideoMAE", "uniform", "semantic", "uniform"),
        _spec("B1", "random", "transformer", "router"),
        _spec("B2", "router", "transformer", "router"),
        _spec("B2+VideoMAE", "router", "semantic", "router"),
    ),
)
UNSEEN = replace(
    TABLE,
    name="main_table1_unseen",
    item="Main Table 1 on games that no router saw",
    protocol="embedded-unseen",
    published=False,
)


def _publish(table: TableSpec, results: Path, own: OwnClips | None = None) -> None:
    chosen = final_tables.publish(table, results, own)
    ending = command_line.ending(own.name) if own else ""
    item = "main Table 1" if table is TABLE else "main Table 1 on unseen games"
    claims.publish(claims.signs(chosen.rows), results, f"{table.name}{ending}_signs", item, claims.DECIDES)


def main(argv: list[str] | None = None) -> int:
    asked = final_tables.parser(__doc__).parse_args(argv)
    with command_line.one_line(TABLE.name, asked):
        if asked.data:
            from evatok.experiments.own_tables import measured

            own = measured(TABLE, asked)
            _publish(TABLE, asked.results, own)
        else:
            for table in (TABLE, UNSEEN):
                _publish(table, asked.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
