"""The proxy and routers for a user's clips: the shipped ones, or the user's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evatok.assignments.reward import Scale
from evatok.evaluation import beam_study, router_quality
from evatok.evaluation.router_study import Comparison, Shelf
from evatok.reporting import router_tables
from evatok.reporting.command_line import CommandLineError, checkpoints_folder
from evatok.routing.trained_router import OperatingPoint, Router, RoutingError
from evatok.search.candidate_table import CandidateTable
from evatok.tokenizers.evatok import AdaptiveTokenizer

PAPER = ("l1", 1.2)
"""Quality and weight (the paper's) of the reward for a proxy without routers."""
_PIXELS = ("l1", "mse", "psnr")
_TAKEN = {*router_quality.SIMPLE, beam_study.BEAM}


@dataclass(frozen=True)
class OwnStudy:
    """A proxy and its routers.

    Attributes:
        shelf: where their results go.
        proxy: path of the proxy's checkpoint.
        comparisons: the routers by reward; none for a proxy without routers.
        paths: the routers' checkpoints.
        shipped: whether they are the shipped routers, which have the paper's rows.
    """

    shelf: Shelf
    proxy: Path
    tokenizer: AdaptiveTokenizer
    comparisons: tuple[Comparison, ...]
    paths: tuple[Path, ...] = ()
    shipped: bool = False

    @classmethod
    def read(cls, asked: argparse.Namespace) -> OwnStudy:
        """Load what `--proxy` and `--router` name; without them, the shipped ones.

        Raises:
            CheckpointError: files that are missing, damaged or of another kind.
            CommandLineError: routers whose rows would share a name, or whose rewards need several networks.
            RoutingError: a router of other levels, blocks or clips than the proxy's, or trained on another's scores.
        """
        shelf = Shelf(asked.results, asked.size, checkpoints_folder(asked))
        proxy = asked.proxy or shelf.proxy
        tokenizer = AdaptiveTokenizer.load(proxy)
        if not asked.router and (not asked.proxy or _shipped_for(shelf, tokenizer)):
            comparisons = tuple(shelf.comparison(point) for point in router_tables.NAMES)
            return cls(shelf, proxy, tokenizer, comparisons, shipped=True)
        routers = fitting(asked.router, proxy, tokenizer)
        study = cls(shelf, proxy, tokenizer, tuple(by_reward(routers)), tuple(asked.router))
        study.perceptual  # noqa: B018 (raises before anything is scored)
        return study

    @property
    def perceptual(self) -> str:
        """Return the metric whose network some router's reward needs; "none" if all use pixels."""
        asked = sorted({each.point.metric for each in self.comparisons} - set(_PIXELS))
        if len(asked) > 1:
            raise CommandLineError(f"--router: rewards of {' and '.join(asked)} need a table each: give them in turn")
        return asked[0] if asked else "none"

    def judged(self, table: CandidateTable) -> tuple[Comparison, ...]:
        """Return the comparisons; without a router, that of the paper's weight, scaled by these clips' scores."""
        if self.comparisons:
            return self.comparisons
        metric, w_q = PAPER
        scale = Scale.of(table.quality(metric), table.candidates)
        return (Comparison(_named(metric, w_q), OperatingPoint(metric, w_q, scale), {}, "the measured clips"),)

    @property
    def pictured(self) -> Router | None:
        """Return the router whose assignments are shown: the best shipped one, or the user's first."""
        if not self.comparisons:
            return None
        routers = self.comparisons[0].routers
        return routers["pyramid_router"] if self.shipped else next(iter(routers.values()))


def fitting(paths: Sequence[Path], proxy: Path, tokenizer: AdaptiveTokenizer) -> dict[str, Router]:
    """Load routers by file name, checking each against the proxy."""
    routers: dict[str, Router] = {}
    for path in paths:
        if path.stem in routers or path.stem in _TAKEN:
            raise CommandLineError(f"--router {path}: another row is called {path.stem}; rename the file")
        router = Router.load(path)
        try:
            router.check_fits(tokenizer.config)
            router.check_scored_by(tokenizer.checkpoint.sha256)
        except RoutingError as error:
            raise RoutingError(f"--router {path} does not go with the proxy {proxy}: {error}") from error
        routers[path.stem] = router
    return routers


def by_reward(routers: dict[str, Router]) -> list[Comparison]:
    """Group routers by reward, in the order given; rewards that differ only in scale are numbered."""
    points: list[OperatingPoint] = []
    for router in routers.values():
        if router.point not in points:
            points.append(router.point)
    names = [_named(point.metric, point.w_q) for point in points]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        Comparison(
            f"{name}_{count + 1}" if count else name,
            point,
            {row: router for row, router in routers.items() if router.point == point},
        )
        for name, count, point in zip(names, counts, points, strict=True)
    ]


def _named(metric: str, w_q: float) -> str:
    return f"{metric}-wq{w_q:g}"


def _shipped_for(shelf: Shelf, proxy: AdaptiveTokenizer) -> bool:
    """Whether the shipped routers were trained on this proxy's scores."""
    path = shelf.router("hard", "matched")
    return path.exists() and Router.load(path).checkpoint.parents["tokenizer"] == proxy.checkpoint.sha256
