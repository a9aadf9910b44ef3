"""Table 3 of the supplement: how good the assignments are that a router predicts in one pass.

    python reproductions/table3.py                        a minute or two on 2 cores, no GPU, no download
    python reproductions/table3.py --data FOLDER_OR_CSV   the same table of your own videos; seconds per clip

Regenerates the embedded validation clips from their seeds, checks that they are the clips that were scored, runs the
shipped routers on them, and reads the stored scores of all candidates. Rows: the best uniform assignment of each
clip, the router (the paper's: a ViT trained on the best candidate alone), the same ViT trained on all scores of a clip
(`router_soft`), an MLP on what pooling would lose of each block (`pyramid_router`), and controls the paper lacks:
the best single assignment, one of AdapTok's published shape and InfoTok's ELBO rule, both at the tokens of the best
assignments, and random ones. Sets: `validation`, `test`; `unseen`, games that no router was trained on and the proxy
was, as the paper's second proxy was on UCF-101; `unseen_by_proxy`, games that neither was. Without the extra
evatok[arcade] the values of games are read from earlier records. Tables: quality by L1 at the weight solved for and at
the paper's, and by ST-LPIPS at the paper's.

With --stored nothing is measured, and all rows are read from their records: seconds.

With --data the proxy first scores every clip under all of its assignments (the shipped one's: 625), shard by shard, and
says beforehand how long that takes: run again after a kill, it resumes. All clips are used, whatever their split, since
nothing here was trained on them. `--proxy` takes a proxy of yours, whose levels and blocks are the candidates, and
`--router` your routers on it; their tables are named by their rewards (`table3_l1-wq1.2_<set>`).

`--search beam` scores few of a clip's assignments instead of all. It cannot tell percentiles, top-1 or top-5, and its
table says so: it has rewards, and regrets against the assignment that the beam found.

Expected (paper, WebVid validation and UCF-101): best uniform 84.88 and 88.46 %, router 96.96 and 96.19 %.
"""

from __future__ import annotations

import argparse
import sys

from evatok.evaluation import router_study
from evatok.evaluation.router_study import Scored, Shelf
from evatok.reporting import command_line, router_tables
from evatok.storage.allocator import keep_freed_memory
from evatok.storage.arguments import positive


def main(argv: list[str] | None = None) -> int:
    parser = command_line.with_search(command_line.with_networks(command_line.with_own(command_line.parser(__doc__))))
    parser.add_argument("--workers", type=positive, default=2, help="processes that render clips")
    parser.add_argument("--stored", action="store_true", help="measure nothing, show the stored records")
    arguments = parser.parse_args(argv)
    with command_line.one_line("table3", arguments):
        command_line.check_own(arguments)
        keep_freed_memory()
        if arguments.data:
            from evatok.experiments import own_table3

            own_table3.show(arguments)
        else:
            report(Shelf(arguments.results, arguments.size, command_line.checkpoints_folder(arguments)), arguments)
    return 0


def report(shelf: Shelf, arguments: argparse.Namespace) -> None:
    """Print a table and its claims per operating point, and draw the first set's clips if available.

    A set that is not measured, such as with `--stored`, is read from its record.
    """
    sets: dict[str, Scored | None] = dict.fromkeys(shelf.sets)
    if not arguments.stored:
        sets = router_study.scored_sets(shelf, arguments.workers)
    for point, name in router_tables.NAMES.items():
        comparison = shelf.comparison(point)
        found = {row: router_study.record_of(shelf, row, comparison, scored) for row, scored in sets.items()}
        router_tables.publish(name, found, shelf, comparison)
    first = next(iter(sets.values()))
    if first is not None:
        rows = first.rankings.assignments(shelf.trained("pyramid_router"))
        print(f"picture: {router_tables.picture(shelf, first.clips.clips, rows, 'table3_clips')}")


if __name__ == "__main__":
    sys.exit(main())
