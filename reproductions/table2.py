"""Table 2 of the supplement: what each of the four stages costs, and the share of the first three.

    python reproductions/table2.py            half a minute; no GPU, no download

Hours come from the training records of what ships, each based on the previous one (`evatok.reporting.cost_tables`).
Device-hours are hours times GPUs, or times threads without a GPU. Operations are counted from the networks' shapes
(`evatok.evaluation.flops`), the same on any machine.

Expected (paper, V100s): 116 h on 64, 12.5 h on 4 x 64, 5 h on 32, 347 h on 64; stages 1 to 3 take 27.8 % of the hours
(32.7 % of the V100-hours). Our share reflects how long our finals train, not how efficient the method is.
"""

from __future__ import annotations

import sys

from evatok.reporting import command_line, cost_tables


def main(argv: list[str] | None = None) -> int:
    arguments = command_line.with_size(command_line.parser(__doc__)).parse_args(argv)
    with command_line.one_line("table2", arguments):
        cost_tables.publish(arguments.results, arguments.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
