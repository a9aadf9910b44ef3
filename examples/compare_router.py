"""Compare a router of your own with the best uniform rows, on stored scores of the embedded validation clips.

python examples/compare_router.py [ROUTER_CHECKPOINT]

A router is anything that names one candidate per clip; without a checkpoint, a rule by motion stands for yours.
"""

import sys

import numpy as np

import evatok
from evatok.assignments import reward
from evatok.search import candidate_table
from evatok.storage.environment import REPOSITORY

TABLE = REPOSITORY / "results/tables/candidates/freedoom-validation.parquet"
SHIPPED = REPOSITORY / "results/checkpoints/router-toy-pyramid-wq1.2.safetensors"


def by_motion(clips: np.ndarray, candidates: evatok.CandidateSet) -> np.ndarray:
    """Stands for your router: the more a clip (T, H, W, 3) changes from frame to frame, the longer its uniform row."""
    change = np.array([np.abs(np.diff(clip.astype(np.int16), axis=0)).mean() for clip in clips])
    return candidates.uniform[change.argsort().argsort() * len(candidates.uniform) // len(clips)]


def main(checkpoint: str = "") -> None:
    table, point = candidate_table.read(TABLE), evatok.Router.load(SHIPPED).point
    candidates, clips = table.candidates, candidate_table.scored_clips(table, size=64, frames=16).clips
    rewards = reward.proxy_reward(table.quality(point.metric), candidates, point.scale, point.w_q)
    chosen = evatok.Router.load(checkpoint).ranking(clips)[:, 0] if checkpoint else by_motion(clips, candidates)
    for name, choice in (("yours", chosen), ("best uniform", reward.best_uniform(rewards, candidates))):
        percentile, tokens = reward.percentile(rewards, choice), candidates.totals[choice].mean()
        print(f"{name:14} proxy-reward percentile {percentile:6.2f} %, {tokens:6.1f} tokens per clip")


if __name__ == "__main__":  # clips are rendered by worker processes, which import this file
    main(*sys.argv[1:])
