"""What measurements of a VideoFlexTok on validation clips share: tokenizer, clips and record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments.tracking import Tracker
from evatok.storage import records
from evatok.storage.records import Metric, Record
from evatok.tokenizers.videoflextok import VideoFlexTok


def tokenizer_of(config: dict[str, Any]) -> VideoFlexTok:
    """Load the configured tokenizer. Raises as `VideoFlexTok.load`."""
    return VideoFlexTok.load(config["tokenizer"], config["device"], codec=config["latents"] or None)


def validation_clips(config: dict[str, Any], tokenizer: VideoFlexTok, frames: int = 0) -> ClipSet:
    """Load the configured number of validation clips in the tokenizer's size, of `frames` each (0: its own number)."""
    shape: dict[str, Any] = {"size": tokenizer.config.size, "frames": frames or tokenizer.config.frames}
    return clip_set(config["data"], "validation", config["clips"], **shape, fps=config["fps"])


def record_of(
    kind: str,
    config: dict[str, Any],
    tracker: Tracker,
    tokenizer: VideoFlexTok,
    clips: ClipSet,
    metrics: Mapping[str, Metric],
    **protocol: Any,
) -> Record:
    """Record a measurement; `protocol` holds what it has besides the clips and the sampling settings."""
    told = ("data", "flow_steps", "flow_guidance", "noise_seed")
    return records.new_record(
        kind=kind,
        status=config["size"],
        protocol={
            **{key: config[key] for key in told},
            "split": "validation",
            "clips": len(clips),
            **protocol,
            "manifest": clips.manifest,
        },
        model={**tokenizer.checkpoint.identity, "run": tracker.run_id},
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
    )
