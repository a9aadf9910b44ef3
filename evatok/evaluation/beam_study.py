"""Routers against simpler baselines on clips for which a beam scores few candidates: Table 3 without percentiles.

A percentile, and whether a choice is the best or among the five best, require the scores of all candidates. A few
scores only give the reward of each choice, and how it compares with the reward of the beam's assignment. The latter is
a lower bound of the best: a regret against it understates the true regret, and may be negative.

Legend: N clips, K temporal blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evatok.evaluation import router_quality
from evatok.evaluation.router_study import Comparison
from evatok.evaluation.searched import WIDTH, Searched
from evatok.metrics import catalogue
from evatok.search.beam import PAYBACK, search_evaluations
from evatok.search.tree import block_visits
from evatok.storage import environment, records
from evatok.storage.records import Metric, Record

BEAM, UNIFORM, RANDOM = "beam", "best_uniform", "random"
CONTROLS = (UNIFORM, "fixed_uniform", "adaptok_row", "infotok", "infotok_global", RANDOM)
"""Rows beside the beam's and the routers'; the single assignment best for all clips would need all scores."""


def record_of(searched: Searched, row: str, comparison: Comparison, size: str, folder: Path) -> Record:
    """Measure all choices on a set by one reward; return the record of an earlier run if it agrees.

    Raises:
        RoutingError: a router was trained on the scores of another tokenizer.
    """
    comparison.check_scored_by(searched.tokenizer.checkpoint.sha256)
    choices, rewards = chosen_rewards(searched, comparison)
    levels, blocks = len(searched.candidates.levels), searched.candidates.blocks
    visited = {"reconstructed": search_evaluations(levels, blocks, width=WIDTH), "of": block_visits(levels, blocks)}
    record = records.new_record(
        kind="table3",
        status=size,
        protocol={
            "item": "table3_beam",
            "set": row,
            **comparison.told,
            "data": dict(searched.clips.manifest),
            "clips": len(searched.clips),
            "search": {"kind": "beam", "width": WIDTH, "payback": PAYBACK, "blocks_per_clip": visited},
            "reference": "the assignment that the beam found, not the best of all candidates, whose scores are unknown",
            "not_measured": ["percentile", "top1", "top5", "best_fixed"],
            "precision": "bf16" if searched.bf16 else "fp32",
        },
        model={"proxy": searched.tokenizer.checkpoint.sha256, "routers": comparison.sha256},
        metrics=measured(rewards, {name: searched.candidates.totals[choice] for name, choice in choices.items()}),
        config={},
        environment=environment.environment(),
    )
    path, _ = records.write_once(record, folder)
    return records.read(path)


def chosen_rewards(searched: Searched, comparison: Comparison) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return candidates (N,) of every row, and their rewards (N,)."""
    choices = chosen(searched, comparison)
    return choices, searched.rewards(comparison.point, choices)


def chosen(searched: Searched, comparison: Comparison) -> dict[str, np.ndarray]:
    """Return candidates (N,) of every row: the beam's, the routers', and the controls at the beam's mean tokens."""
    candidates, clips = searched.candidates, len(searched.clips)
    found = searched.found(comparison.point)
    uniform = np.stack(list(searched.rewards(comparison.point, _uniform(searched)).values()), axis=1)
    spent = float(candidates.totals[found].mean())
    return {
        BEAM: found,
        **{name: searched.rankings.by(router)[:, 0] for name, router in comparison.routers.items()},
        UNIFORM: candidates.uniform[uniform.argmax(axis=1)],
        "fixed_uniform": np.full(clips, candidates.uniform[uniform.mean(axis=0).argmax()]),
        **router_quality.published_choices(candidates, searched.losses, spent),
        RANDOM: np.random.default_rng(0).integers(len(candidates), size=clips),
    }


def _uniform(searched: Searched) -> dict[str, np.ndarray]:
    """The m uniform assignments, shortest first."""
    return {str(index): np.full(len(searched.clips), index) for index in searched.candidates.uniform.tolist()}


def measured(rewards: Mapping[str, np.ndarray], tokens: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Compute metrics of choices from their rewards and tokens (N,), each `<name>.<metric>` with its standard error.

    proxy_reward, mean_tokens; beam_regret, the beam's reward minus that of the choice; as_good_as_beam, the percentage
    of clips on which the regret is at most 0; and for routers reward_over_uniform, over the best uniform assignment of
    each clip.
    """
    metrics = {}
    for name, own in rewards.items():
        values = {"proxy_reward": own, "mean_tokens": tokens[name]}
        if name != BEAM:
            values["beam_regret"] = rewards[BEAM] - own
            values["as_good_as_beam"] = 100.0 * (own >= rewards[BEAM])
        if name not in CONTROLS:
            values["reward_over_uniform"] = own - rewards[UNIFORM]
        for metric, each in values.items():
            spread = float(each.std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else None
            metrics[f"{name}.{metric}"] = catalogue.of(metric).measured(float(each.mean()), len(each), spread)
    return metrics
