"""Write an evaluation's files: per-clip arrays, and worst and median clips beside their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evatok.data.clips import ClipSet
from evatok.evaluation import Evaluation, FolderClips, System, per_clip, showing
from evatok.evaluation.summary import PER_CLIP
from evatok.experiments.setting import optional_artifact
from evatok.experiments.tracking import ConfigError
from evatok.metrics import catalogue
from evatok.pictures import gallery
from evatok.storage import records


def beside(result: Evaluation, folder: str) -> dict[str, records.Artifact]:
    """Return the per-clip files that a record names (`evatok.evaluation.per_clip`); none if not configured."""
    if not folder or not result.kept:
        return {}
    parts = {per_clip.MEASURED: result.kept, per_clip.REFERENCE: result.reference}
    written = {name: per_clip.write(arrays, Path(folder), name) for name, arrays in parts.items() if arrays}
    return {name: found for file, path in written.items() for name, found in optional_artifact(file, path).items()}


def ranked_by(config: dict[str, Any], metrics: Sequence[str]) -> str:
    """Return the metric that orders the clips to show, "" if none are requested: the first with a value per clip.

    Raises:
        ConfigError: clips to show, but no per-clip metric is measured.
    """
    if not config["show"]:
        return ""
    found = next((name for name in metrics if name in PER_CLIP), None)
    if found is None:
        raise ConfigError(
            f"config key show: worst and median clips are told by a metric that has a value per clip, and {metrics} "
            f"are measured; add one of {', '.join(PER_CLIP)} to metrics, or set show=0"
        )
    return found


def show(
    config: dict[str, Any], system: System, clips: ClipSet | FolderClips, result: Evaluation, metric: str
) -> dict[str, Path]:
    """Write clips and their reconstructions into `output`; return the files."""
    entry, values = catalogue.of(metric), result.per_clip[metric]
    chosen = showing.worst_and_median(values, config["show"], higher=entry.direction == "higher")
    pixels = clips.clips if isinstance(clips, ClipSet) else clips
    real = np.concatenate([np.asarray(pixels[index : index + 1]) for index in chosen])
    made, tokens = showing.reconstructed(system, real, list(chosen), config["device"])
    counted = ["" if tokens is None else f", {row.sum()} tokens" for row in (made if tokens is None else tokens)]
    notes = [f"{metric} {values[i]:.{entry.decimals}f}{told}" for i, told in zip(chosen, counted, strict=True)]
    return gallery.write_reconstructions(
        config["output"],
        real,
        {"reconstructed": made},
        [f"clip {index} ({rank})" for index, rank in chosen.items()],
        {"reconstructed": notes},
        {"reconstructed": tokens},
        moving=config["moving"],
        fps=config["fps"],
    )
