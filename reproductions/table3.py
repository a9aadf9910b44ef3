"""Table 3 of the supplement: how good the assignments are that a router names in one pass.

    python reproductions/table3.py                        a minute or two on 2 cores, no GPU, no download
    python reproductions/table3.py --data FOLDER_OR_CSV   the same table of your own videos; seconds per clip

Regenerates the embedded validation clips from their seeds, checks that they are the clips that were scored, runs the
shipped routers on them, and reads the stored scores of all candidates. Rows: the best uniform assignment of each
clip, the router (the paper's: a ViT trained on the best candidate alone), the same ViT trained on all scores of a clip
(`router_soft`), an MLP on what pooling would lose of each block (`pyramid_router`), and controls the paper lacks:
the best single assignment, one of AdapTok's published shape and InfoTok's ELBO rule, both at the tokens of the best
assignments, and random ones. `unseen` are clips of the Arcade set, which no router was trained on; the proxy was, as
the paper's second proxy was on UCF-101. Without the extra evatok[arcade] the values of the unseen clips are read from
an earlier record.

With --data the shipped proxy first scores every clip under all 625 assignments, shard by shard: run again after a kill,
it resumes. All rows that name no split are used, since nothing here was trained on them.

Expected (paper, WebVid validation and UCF-101): best uniform 84.88 and 88.46 %, router 96.96 and 96.19 %.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evatok import errors
from evatok.assignments import reward
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.evaluation import router_quality
from evatok.experiments import stage2_curation
from evatok.pictures.contact_sheet import contact_sheet
from evatok.reporting import tables
from evatok.reporting.tables import Cell
from evatok.routing.trained_router import Router
from evatok.search import candidate_table, tree
from evatok.storage import checkpoints, environment, records
from evatok.tokenizers.evatok import AdaptiveTokenizer

SETS = {
    "validation": "freedoom-validation",
    "test": "freedoom-test",
    "unseen": "arcade-validation",
    "seen_games": "arcade-seen-validation",
    "held_out_games": "arcade-held-out-validation",
}
"""Rows and the candidate tables behind them. Of the games the proxy saw all (`unseen`, older tables), those of its own
training set, or none; no router saw any."""
POINTS = {"matched": "table3", "wq1.2": "table3_wq1.2"}
ROUTERS = {"router": "hard", "router_soft": "soft", "pyramid_router": "pyramid", "feature_router": "features"}
METRICS = ("top1", "top5", "percentile")
PICTURED = 8
# Logits differ in the last bits between processors, which can turn a near tie.
TOLERANCE = 0.5


@dataclass(frozen=True)
class Shelf:
    """Where a Table 3 finds its inputs and leaves its outputs."""

    root: Path
    size: str

    def router(self, kind: str, point: str) -> Path:
        return self.root / "checkpoints" / f"router-{self.size}-{kind}-{point}.safetensors"

    @cached_property
    def proxy(self) -> Path:
        """The tokenizer whose scores the routers learned from, found by its hash.

        Raises:
            CheckpointError: none of the proxies there is it.
        """
        wanted = Router.load(self.router("hard", "matched")).checkpoint.parents["tokenizer"]
        found = sorted((self.root / "checkpoints").glob(f"proxy-{self.size}*.safetensors"))
        for path in found:
            if checkpoints.load(path, "tokenizer").sha256 == wanted:
                return path
        raise checkpoints.CheckpointError(
            f"{self.root / 'checkpoints'}: none of {len(found)} proxies is the one the routers learned from "
            f"(sha256 {wanted[:12]}); fetch it, or run stages 1 to 3 again"
        )

    def candidates(self, name: str) -> Path:
        return self.root / "tables" / "candidates" / f"{name}.parquet"


@dataclass(frozen=True)
class Scored:
    """A set's clips with their candidate table: what every row of one set is computed from.

    `losses` (N, K) are those of the proxy's blocks at full length.
    """

    clips: ClipSet
    table: candidate_table.CandidateTable
    losses: np.ndarray


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=records.REPOSITORY / "results", help="folder of results")
    parser.add_argument("--size", default="toy", help="size of proxy and routers: toy, small or paper")
    parser.add_argument("--workers", type=int, default=2, help="processes that make clips")
    parser.add_argument("--data", default="", help="your own videos: a manifest CSV or a folder of class folders")
    parser.add_argument("--fps", type=float, default=None, help="frames per second taken from them (default: theirs)")
    parser.add_argument("--limit", type=int, default=0, help="use so many of their clips (default: all)")
    arguments = parser.parse_args(argv)
    shelf = Shelf(arguments.results, arguments.size)
    with errors.one_line("table3"):
        if arguments.data:
            report_on(shelf, arguments.data, arguments.fps, arguments.limit)
        else:
            report(shelf, arguments.workers)
    return 0


def report(shelf: Shelf, workers: int) -> None:
    """Measure every embedded set at every operating point, write tables, records and the picture, print the tables."""
    there = {row: name for row, name in SETS.items() if shelf.candidates(name).exists() or row == "validation"}
    missing = [row for row in SETS if row not in there]
    if missing:
        print(f"left out, as never scored (reproductions/embedded.sh does): {', '.join(missing)}", file=sys.stderr)
    sets = {row: scored_set(shelf, name, workers) for row, name in there.items()}
    write_tables(shelf, sets, POINTS)
    if sets["validation"] is not None:
        print(f"picture: {picture(shelf, sets['validation'], 'table3_clips')}")


def report_on(shelf: Shelf, data: str, fps: float | None, limit: int) -> None:
    """The same of a user's videos, as tables and a picture named after them."""
    scored = scored_videos(shelf, data, fps, limit)
    row = scored.clips.name
    names = {point: f"{name}_{row}" for point, name in POINTS.items()}
    write_tables(shelf, {row: scored}, names)
    print(f"picture: {picture(shelf, scored, f'table3_clips_{row}')}")


def write_tables(shelf: Shelf, sets: dict[str, Scored | None], names: dict[str, str]) -> None:
    """A table for each operating point, written under its name and printed."""
    paper = tables.paper_values("table3")
    for point, name in names.items():
        cells: list[Cell] = []
        for row, scored in sets.items():
            found = stored_record(shelf, row, point) if scored is None else measured_record(shelf, row, point, scored)
            cells += to_cells(found, row, shelf, paper)
        caption = caption_of(shelf, point)
        tables.Table(name, caption, cells, right=("n",)).publish(shelf.root)


def scored_videos(shelf: Shelf, data: str, fps: float | None, limit: int) -> Scored:
    """A user's videos, scored by the shipped proxy under every candidate: stage 2, which resumes."""
    proxy, _ = AdaptiveTokenizer.load(shelf.proxy)
    shape = proxy.config
    clips = clip_set(data, "all", limit, size=shape.size, frames=shape.frames, fps=fps)
    table = shelf.root / "work" / "table3" / f"{clips.name}-{clips.sha256[:8]}.parquet"
    settings = {
        **{"tokenizer": str(shelf.proxy), "data": data, "fps": fps, "split": "all", "clips": limit},
        **{"size": shelf.size, "table": str(table), "work": str(shelf.root / "work" / "table3")},
        **{"records_folder": str(shelf.root / "records"), "shard_length": 16, "batch": 16},
    }
    if not table.exists():
        stage2_curation.ex.run(config_updates=settings)
    scores = candidate_table.read(table)
    return Scored(clips, scores, router_quality.full_length_losses(proxy, clips.clips))


def scored_set(shelf: Shelf, name: str, workers: int) -> Scored | None:
    """The clips of a candidate table, made anew and checked; None where they cannot be made here.

    Clips that differ from the scored ones (made by another version of their package) are scored anew.
    Raises CurationError for a table that is not the one the routers were chosen on.
    """
    table = candidate_table.read(shelf.candidates(name))
    known = router_of(shelf).checkpoint.parents.get("validation_table")
    if name == SETS["validation"] and known not in (None, table.sha256):
        raise candidate_table.CurationError(
            f"{shelf.candidates(name)}: not the table that the routers name as theirs (sha256 {known[:12]}, this one "
            f"{table.sha256[:12]}); fetch it again, or run stage2_curation and stage3_router again"
        )
    candidate_table.check_named(shelf.candidates(name), table, shelf.root / "records")
    data, shape = table.origin["data"], router_of(shelf).config
    try:
        clips = candidate_table.clips_again(table, size=shape.size, frames=shape.frames, workers=workers)
    except ImportError as error:
        print(f"{name}: {error}; its rows are read from the record of an earlier run", file=sys.stderr)
        return None
    if clips.sha256 == data["sha256"]:
        print(f"{name}: {len(clips)} clips made, hash as recorded ({clips.sha256[:12]})", file=sys.stderr)
        return Scored(clips, table, losses_of(shelf, clips))
    print(
        f"{name}: these clips (sha256 {clips.sha256[:12]}, made with {clips.manifest['versions']}) are not the ones "
        f"that were scored ({data['sha256'][:12]}, {data['versions']}); scoring them anew, some seconds per clip",
        file=sys.stderr,
    )
    return Scored(clips, rescored(shelf, clips, table), losses_of(shelf, clips))


def losses_of(shelf: Shelf, clips: ClipSet) -> np.ndarray:
    """(N, K) losses of the proxy's blocks at full length."""
    return router_quality.full_length_losses(AdaptiveTokenizer.load(shelf.proxy)[0], clips.clips)


def rescored(shelf: Shelf, clips: ClipSet, table: candidate_table.CandidateTable) -> candidate_table.CandidateTable:
    """A candidate table of clips that no stored table fits, by the shipped proxy."""
    tokenizer, checkpoint = AdaptiveTokenizer.load(shelf.proxy)
    scores = tree.score_set(tokenizer, clips.clips)
    data = {**table.origin["data"], "sha256": clips.sha256, "versions": clips.manifest["versions"]}
    origin = {**table.origin, "tokenizer": checkpoint.sha256, "data": data}
    return candidate_table.CandidateTable(np.arange(len(clips)), scores, origin)


def router_of(shelf: Shelf, row: str = "router", point: str = "matched") -> Router:
    return Router.load(shelf.router(ROUTERS[row], point))


def measured_record(shelf: Shelf, row: str, point: str, scored: Scored) -> records.Record:
    """All rows of one set at one point; the record of an earlier run where it says the same, else a new one."""
    routers = {name: router_of(shelf, name, point) for name in ROUTERS}
    for router in routers.values():
        router.check_scored_by(scored.table.origin["tokenizer"])
    point_of = routers["router"].point
    rewards = reward.proxy_reward(
        scored.table.quality(point_of.metric), scored.table.candidates, point_of.scale, point_of.w_q
    )
    rankings = {name: router.ranking(scored.clips.clips) for name, router in routers.items()}
    candidates = scored.table.candidates
    simple = router_quality.simple_choices(rewards, candidates, scored.losses)
    metrics = router_quality.choice_metrics(rewards, simple, rankings)
    choices = {**simple, **{name: ranks[:, 0] for name, ranks in rankings.items()}}
    protocol = {
        "item": "table3",
        "set": row,
        "point": point,
        "w_q": point_of.w_q,
        "metric": point_of.metric,
        "data": scored.table.origin["data"],
        "clips": len(scored.clips),
        "table": scored.table.sha256,
    }
    model = {
        "routers": {name: router.checkpoint.sha256 for name, router in routers.items()},
        **router_quality.spending(rewards, candidates, choices),
    }
    for earlier in reversed(records.query(shelf.root / "records", kind="table3", item="table3", set=row, point=point)):
        same_routers = earlier.model["routers"] == model["routers"]
        if earlier.protocol == protocol and same_routers and agrees(earlier, metrics):
            return earlier
    record = records.new_record(
        kind="table3",
        status=shelf.size,
        protocol=protocol,
        model=model,
        metrics=metrics,
        config={},
        environment=environment.environment(),
    )
    return records.read(records.write(record, shelf.root / "records"))


def agrees(earlier: records.Record, metrics: dict[str, records.Metric]) -> bool:
    """Whether a record holds the same values, up to near ties."""
    if earlier.metrics.keys() != metrics.keys():
        return False
    return all(abs(earlier.metrics[name].value - metric.value) <= TOLERANCE for name, metric in metrics.items())


def stored_record(shelf: Shelf, row: str, point: str) -> records.Record | None:
    """The newest record of a set that cannot be measured here."""
    found = records.query(shelf.root / "records", kind="table3", item="table3", set=row, point=point)
    return found[-1] if found else None


def to_cells(record: records.Record | None, row: str, shelf: Shelf, paper: dict[tuple[str, str], float]) -> list[Cell]:
    """Cells of one set: every measured row, or the paper's alone where nothing was ever measured."""
    cells = []
    simple = [name for name in router_quality.SIMPLE if name != "best_uniform"]
    names = ["best_uniform", *ROUTERS, *simple]
    for name in names:
        for metric in METRICS:
            value = None if record is None else record.metrics.get(f"{name}.{metric}")
            printed = paper.get((f"{row}/{name}", metric))
            if value is None and printed is None:
                continue
            ours, n, spread = (None, None, None) if value is None else (value.value, value.n, value.spread)
            made_by = None if record is None else record.id
            status = "paper-only" if value is None else shelf.size
            cells.append(Cell(f"{row}/{name}", metric, printed, ours, "%", n, status, made_by, spread))
    return cells


def caption_of(shelf: Shelf, point: str) -> str:
    router = router_of(shelf, "router", point)
    weights = f"w_q = {router.point.w_q:.3f}, w_l = {2 - router.point.w_q:.3f}"
    middle = router.config.levels[len(router.config.levels) // 2]
    what = {
        "matched": f"solved for, so that the best assignments average 0.70 of the tokens of {middle} per block",
        "wq1.2": "the paper's weight",
    }[point]
    return (
        f"Supplement Table 3, ours (paper), in percent; {shelf.size} size, quality {router.point.metric}, "
        f"{weights}: {what}."
    )


def picture(shelf: Shelf, scored: Scored, file: str) -> Path:
    """Clips of a set, from few tokens to many, with the tokens each block got (main Fig. 1)."""
    name = "pyramid_router"
    rows = router_of(shelf, name).assignments(scored.clips.clips)
    order = np.argsort(rows.sum(1), kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(PICTURED, len(order))).astype(int)]
    captions = [f"clip {i}, {rows[i].sum()} tokens" for i in picked]
    sheet = contact_sheet(scored.clips.clips[picked], captions, assignments=rows[picked])
    path = shelf.root / "figures" / f"{file}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


if __name__ == "__main__":
    sys.exit(main())
