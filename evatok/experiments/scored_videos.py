"""A user's own videos, scored by the shipped proxy under every candidate: what a Table 3 of them is measured on."""

from __future__ import annotations

from evatok.data.sets import clip_set
from evatok.evaluation import router_quality, router_study
from evatok.experiments import stage2_curation
from evatok.search import candidate_table
from evatok.tokenizers.evatok import AdaptiveTokenizer

PERCEPTUAL = "st-lpips"
"""Scored beside L1, on one frame per block, since one of the table's operating points asks for it."""


def scored_videos(shelf: router_study.Shelf, data: str, fps: float | None, limit: int) -> router_study.Scored:
    """A user's videos, scored by the shipped proxy under every candidate: stage 2, which resumes."""
    proxy = AdaptiveTokenizer.load(shelf.proxy)
    shape = proxy.config
    clips = clip_set(data, "all", limit, size=shape.size, frames=shape.frames, fps=fps)
    work = shelf.root / "work" / f"table3-{PERCEPTUAL}"
    table = work / f"{clips.name}-{clips.sha256[:8]}.parquet"
    settings = {
        **{"tokenizer": str(shelf.proxy), "data": data, "fps": fps, "split": "all", "clips": limit},
        **{"size": shelf.size, "table": str(table), "work": str(work)},
        **{"perceptual": PERCEPTUAL, "perceptual_frames": 1},
        **{"records_folder": str(shelf.root / "records"), "shard_length": 16, "batch": 16},
    }
    if not table.exists():
        stage2_curation.ex.run(config_updates=settings)
    scores = candidate_table.read(table)
    return router_study.Scored(clips, scores, router_quality.full_length_losses(proxy, clips.clips))
