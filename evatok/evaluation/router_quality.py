"""Quality of assignment choices on scored clips: percentile and top-k of routers and of simple baselines.

Legend: N clips, K temporal blocks, A candidates; rewards are (N, A), a choice is (N,) candidate indices.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evatok.assignments import published, reward
from evatok.assignments.candidates import CandidateSet
from evatok.metrics import catalogue
from evatok.storage.records import Metric

SIMPLE = {
    "best_uniform": "the best uniform assignment of each clip (the paper's row)",
    "fixed_uniform": "the one uniform assignment that is best on these clips",
    "best_fixed": "the one assignment that is best on these clips",
    "adaptok_row": "the one assignment with the shape of AdapTok's published block budgets, at those tokens",
    "infotok": "InfoTok's ELBO rule within each clip, at those tokens",
    "infotok_global": "the same across clips",
    "random": "a uniformly drawn assignment",
}
"""Baselines of the routers, in the order of the table. "Those tokens" are the mean tokens of the best assignments."""


def simple_choices(rewards: np.ndarray, candidates: CandidateSet, losses: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the choices that need no router, all of SIMPLE but "random", and AdapTok's for its 4 blocks only.

    Args:
        losses: (N, K) under the longest assignment, see `evatok.evaluation.full_length`.
    """
    uniform_means = rewards[:, candidates.uniform].mean(0)
    spent = float(candidates.totals[reward.best(rewards)].mean())
    return {
        "best_uniform": reward.best_uniform(rewards, candidates),
        "fixed_uniform": reward.fixed(rewards, int(candidates.uniform[uniform_means.argmax()])),
        "best_fixed": reward.fixed(rewards, reward.best_fixed(rewards)),
        **published_choices(candidates, losses, spent),
    }


def published_choices(candidates: CandidateSet, losses: np.ndarray, spent: float) -> dict[str, np.ndarray]:
    """Choices (N,) by other papers' rules at about `spent` tokens per clip; `losses` as in `simple_choices`."""
    adaptok = {}
    if candidates.blocks == len(published.ADAPTOK_ROW):
        adaptok["adaptok_row"] = reward.fixed(losses, published.adaptok_row(candidates, spent))
    return {
        **adaptok,
        "infotok": published.infotok(losses, candidates, spent),
        "infotok_global": published.infotok(losses, candidates, spent, across=True),
    }


def choice_metrics(
    rewards: np.ndarray, simple: Mapping[str, np.ndarray], rankings: Mapping[str, np.ndarray]
) -> dict[str, Metric]:
    """Compute `<name>.percentile` of every choice, `.top1` and `.top5` of every ranking (N, A), and random's mean."""
    metrics: dict[str, Metric] = {}
    for name, choice in {**simple, **{name: ranks[:, 0] for name, ranks in rankings.items()}}.items():
        metrics[f"{name}.percentile"] = percentile_metric(rewards, choice)
    for name, ranks in rankings.items():
        for k in (1, 5):
            metrics[f"{name}.top{k}"] = catalogue.of(f"top{k}").measured(reward.top_k(rewards, ranks, k), len(ranks))
    means = (rewards.mean(), rewards.min(1).mean(), rewards.max(1).mean())
    metrics["random.percentile"] = catalogue.of("percentile").measured(reward.percentile_of_means(*means), len(rewards))
    return metrics


def percentile_metric(rewards: np.ndarray, choice: np.ndarray) -> Metric:
    """Percentile with its standard error over 1,000 bootstrap draws of the clips; none for a single clip."""
    value = reward.percentile(rewards, choice)
    if len(rewards) < 2:
        return catalogue.of("percentile").measured(value, len(rewards))

    def statistic(chosen: np.ndarray, low: np.ndarray, high: np.ndarray, axis: int = -1) -> np.ndarray:
        chosen_mean, low_mean, high_mean = (values.mean(axis) for values in (chosen, low, high))
        return 100 * (chosen_mean - low_mean) / (high_mean - low_mean)

    from scipy.stats import bootstrap  # here: importing it takes longer than the rest of a warm start

    drawn = bootstrap(
        reward.reward_bounds(rewards, choice),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return catalogue.of("percentile").measured(value, len(rewards), float(drawn.standard_error))


def spending(rewards: np.ndarray, candidates: CandidateSet, choices: Mapping[str, np.ndarray]) -> dict[str, object]:
    """What the optimum and each choice spend: mean tokens per clip and per block; and how many optima differ."""
    optimal = reward.best(rewards)
    spent = {name: candidates.row(choice) for name, choice in {**choices, "optimal": optimal}.items()}
    return {
        "mean_tokens": {name: float(rows.sum(1).mean()) for name, rows in spent.items()},
        "tokens_per_block": {name: rows.mean(0).tolist() for name, rows in spent.items()},
        "distinct_optima": len(np.unique(optimal)),
    }
