"""Stage 2's searches: the exact tree against brute force, the beam against the tree, chunks against length.

Toy size runs the shipped proxy on embedded clips, so that percentiles are meaningful; other sizes run random weights on
noise, which costs the same. Seconds are those of one batch of the same clips, timed alternately within one run.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from benchmarks.ratios import Pass, Ratio, once, slope
from benchmarks.setting import Setting, noise, real_clips, tokenizer_of
from evatok.assignments import reward
from evatok.metrics.perceptual import METRICS as PERCEPTUAL
from evatok.metrics.perceptual import PerceptualDistance, SomeFrames, scoring_metric
from evatok.routing.trained_router import OperatingPoint
from evatok.search import candidate_table
from evatok.search.beam import beam_search, search_evaluations, search_set
from evatok.search.frontier import BlockMetrics, Frontier, Walk
from evatok.search.tree import block_visits, brute_force, prefix_tree
from evatok.storage import checkpoints
from evatok.storage.environment import REPOSITORY
from evatok.tokenizers.codes import expand_assignment
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.tokenizers.incremental import BlockwiseTokenizer

WIDTH, CHUNK = 3, 2
SEARCHED = (
    ("greedy_search", 1, 1),
    ("beam_search_width_2", 2, 1),
    ("beam_search", WIDTH, 1),
    ("chunked_search", 1, CHUNK),
)
"""Rows of the table: name, width, chunk."""
BATCHES = (1, 2, 4, 8, 16)
CHECKPOINTS = REPOSITORY / "results" / "checkpoints"
PROXY = CHECKPOINTS / "proxy-toy-motion.safetensors"
ROUTERS = ("router-toy-hard-wq1.2", "router-toy-hard-matched")
TABLES = REPOSITORY / "results" / "tables" / "candidates"


def tree_against_brute(setting: Setting, clips: int = 8) -> list[Ratio]:
    """Row tree_search: the same scores of every candidate, with brute force at its best batch size."""
    tokenizer, real = proxy_and_clips(setting, clips)
    levels, blocks = len(tokenizer.config.levels), tokenizer.config.candidates.blocks
    batch = best_brute_batch(setting, tokenizer, real)

    def brute() -> list[dict[str, np.ndarray]]:
        return [brute_force(tokenizer, part) for part in real.split(batch)]

    def tree() -> dict[str, np.ndarray]:
        return prefix_tree(tokenizer, real)

    seconds = _alternating(setting, [brute, tree])
    note = f"{levels}^{blocks} candidates of {clips} clips; brute force at its best batch, {batch}"
    return [
        Ratio("tree_search", "block_evaluations", blocks * levels**blocks, block_visits(levels, blocks), note),
        Ratio.of("tree_search", "wall_seconds", seconds, note),
    ]


def best_brute_batch(setting: Setting, tokenizer: AdaptiveTokenizer, clips: torch.Tensor) -> int:
    """Find the batch size, at most all clips, at which brute force is fastest per clip, on a sample of candidates."""
    rows = tokenizer.config.candidates.rows[:: max(1, len(tokenizer.config.candidates) // 12)]

    def sample(batch: int) -> Pass:
        def run() -> None:
            for row in rows:
                tokenizer(clips[:batch], expand_assignment(tuple(row.tolist()), batch).to(clips.device))

        return run

    batches = [batch for batch in BATCHES if batch <= len(clips)]
    seconds = _alternating(setting, [sample(batch) for batch in batches])
    return min(zip(batches, seconds, strict=True), key=lambda each: each[1] / each[0])[0]


def beam_against_tree(setting: Setting, clips: int = 4) -> list[Ratio]:
    """Row beam_search: a good candidate against the exact search for the best."""
    tokenizer, real = proxy_and_clips(setting, clips)
    point = operating_points(setting)[0]
    perceptual = _perceptual(setting, point)
    levels, blocks = len(tokenizer.config.levels), tokenizer.config.candidates.blocks
    seconds = _alternating(
        setting,
        [
            lambda: prefix_tree(tokenizer, real, perceptual, point.metric),
            lambda: beam_search(tokenizer, real, point, width=WIDTH, perceptual=perceptual),
        ],
    )
    note = f"the exact tree against a beam of width {WIDTH}, {clips} clips at a time"
    ours = search_evaluations(levels, blocks, width=WIDTH)
    return [
        Ratio("beam_search", "block_evaluations", block_visits(levels, blocks), ours, note),
        Ratio.of("beam_search", "wall_seconds", seconds, note),
    ]


def beam_percentile(
    setting: Setting, clips: int = 32, sets: tuple[str, ...] = ("freedoom", "arcade-seen")
) -> list[Ratio]:
    """Proxy-reward percentile of the choices of beams and chunks, against 100 for exact search; only at toy size."""
    if not _shipped(setting):
        return []
    tokenizer, ratios = _proxy(setting), []
    for name in ("freedoom", "arcade-seen"):
        table = candidate_table.read(TABLES / f"{name}-validation.parquet").take(np.arange(clips))
        pixels = candidate_table.clips_again(table, size=tokenizer.config.size, frames=tokenizer.config.frames).clips
        for point in operating_points(setting):
            rewards = reward.proxy_reward(table.quality(point.metric), table.candidates, point.scale, point.w_q)
            search = partial(search_set, bf16=setting.bf16, perceptual=_perceptual(setting, point))
            for row, width, chunk in SEARCHED:
                chosen = search(tokenizer, pixels, point, width=width, chunk=chunk)
                reached = reward.percentile(rewards, table.candidates.index(chosen.assignments))
                note = f"{chosen.evaluations} block evaluations, {clips} clips of {name}; more is better, 100 is exact"
                ratios.append(Ratio(row, f"percentile_{name}_wq{point.w_q:g}", 100.0, reached, note))
    return ratios


def chunked_against_length(setting: Setting, clips: int = 2, lengths: tuple[int, ...] = (1, 2, 4)) -> list[Ratio]:
    """Row chunked_search: clips of K, 2K, 4K blocks by chunks of two; supplement B expects seconds to grow as K^2."""
    base = setting.tokenizer
    point = OperatingPoint("l1", 1.2, reward.Scale(-0.25, 0.02, 100.0, 40.0))  # any: weights are random
    passes: list[Pass] = []
    for times in lengths:
        longer = replace(setting.with_tokenizer(frames=times * base.frames), batch=clips)
        tokenizer, made = tokenizer_of(longer), noise(longer)
        passes.append(lambda t=tokenizer, m=made: beam_search(t, m, point, width=1, chunk=CHUNK))  # type: ignore[misc]
    seconds = _alternating(setting, passes)
    blocks = [times * base.candidates.blocks for times in lengths]
    levels = len(base.levels)
    longest = search_evaluations(levels, blocks[-1], width=1, chunk=CHUNK)
    note = f"K = {', '.join(map(str, blocks))} in chunks of {CHUNK}"
    steps = ", ".join(f"x{high / low:.2f}" for low, high in pairwise(seconds))
    return [
        Ratio("chunked_search", "wall_exponent", 2.0, slope(blocks, seconds), f"{note}; supplement B: 2; {steps}"),
        Ratio(
            "chunked_search",
            "block_evaluations",
            float(block_visits(levels, blocks[-1])),
            longest,
            f"all of m^K against chunks of {CHUNK}, K = {blocks[-1]}",
        ),
    ]


def branch_and_bound(setting: Setting, clips: int = 4) -> list[Ratio]:
    """Row branch_and_bound: block evaluations per clip that the exact optimum needs, against the tree's.

    A prefix is pruned if no continuation can beat the beam's choice: later blocks have an error of at least 0 and cost
    at least the lowest level. Not in the library, because a table of all scores gives labels for every weight, this
    only for one.
    """
    tokenizer, real = proxy_and_clips(setting, clips)
    candidates, ratios = tokenizer.config.candidates, []
    for point in operating_points(setting):
        with torch.no_grad(), setting.autocast():
            perceptual = _perceptual(setting, point)
            first = beam_search(tokenizer, real, point, width=WIDTH, perceptual=perceptual)
            measure = BlockMetrics(real, candidates.blocks, perceptual, point.metric)
            walk = Walk(BlockwiseTokenizer(tokenizer, real), measure)
            needed = _needed(walk, walk.start(), np.ones(len(real), bool), first.rewards, point)
        row = f"branch_and_bound_wq{point.w_q:g}"
        note = f"the tree, against what branch and bound needs, {first.evaluations} of a first beam included"
        visits = block_visits(len(candidates.levels), candidates.blocks)
        ratios.append(Ratio(row, "block_evaluations", visits, needed / clips + first.evaluations, note))
    return ratios


def _needed(walk: Walk, frontier: Frontier, alive: np.ndarray, to_beat: np.ndarray, point: OperatingPoint) -> int:
    """Count evaluations, over all clips (B,), below a prefix that is still `alive` for some."""
    candidates, scale = walk.candidates, point.scale
    done = frontier.lengths.shape[2]
    error = frontier.errors[point.metric][:, 0].double().cpu().numpy() if done else np.zeros(len(alive))
    z_quality = (-error / candidates.blocks - scale.quality_mean) / scale.quality_std
    spent = int(frontier.lengths[0].sum()) + (candidates.blocks - done - 1) * candidates.levels[0]
    count = 0
    for level in candidates.levels:
        bound = point.w_q * z_quality - (2 - point.w_q) * (spent + level - scale.length_mean) / scale.length_std
        still = alive & (bound > to_beat)
        count += int(still.sum())
        if still.any() and done + 1 < candidates.blocks:
            count += _needed(walk, walk.extend(frontier, level), still, to_beat, point)
    return count


def proxy_and_clips(setting: Setting, clips: int) -> tuple[AdaptiveTokenizer, torch.Tensor]:
    """The shipped proxy and embedded clips at toy size, else random weights and noise."""
    if _shipped(setting):
        return _proxy(setting), real_clips(setting, clips)
    return tokenizer_of(setting), noise(setting, clips)


def operating_points(setting: Setting) -> list[OperatingPoint]:
    """Those of the shipped routers at toy size; elsewhere one with an arbitrary scale, as the choices do not matter."""
    paths = [CHECKPOINTS / f"{name}.safetensors" for name in ROUTERS]
    if _shipped(setting) and all(path.exists() for path in paths):
        return [OperatingPoint.from_dict(checkpoints.load(path, "router").facts["point"]) for path in paths]
    totals = setting.tokenizer.candidates.totals
    return [OperatingPoint("l1", 1.2, reward.Scale(-0.25, 0.02, float(totals.mean()), float(totals.std())))]


def _perceptual(setting: Setting, point: OperatingPoint) -> PerceptualDistance | SomeFrames | None:
    """The perceptual metric of an operating point, on one frame per block as stage 2 scores it; None for L1."""
    if point.metric not in PERCEPTUAL:
        return None
    return scoring_metric(point.metric, 1, setting.device, bf16=setting.bf16)


def _shipped(setting: Setting) -> bool:
    return setting.tokenizer == TOKENIZER_SIZES["toy"] and PROXY.exists()


def _proxy(setting: Setting) -> AdaptiveTokenizer:
    return AdaptiveTokenizer.load(PROXY, setting.device)


def _alternating(setting: Setting, passes: list[Pass]) -> list[float]:
    """Median seconds of each pass over a few alternating turns, without separate warm-up of such long passes."""
    turns = min(setting.repeats, 2)
    seconds = [[once(setting.within(each), setting.device) for each in passes] for _ in range(turns)]
    return np.median(seconds, axis=0).tolist()
