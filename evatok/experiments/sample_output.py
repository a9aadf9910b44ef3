"""Write samples for inspection: frames, a sheet, a moving picture, and the tokens of every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evatok.data.clips import ClipSet
from evatok.generation.samples import Samples
from evatok.generation.video_generator import VideoGenerator
from evatok.pictures import gallery
from evatok.tokenizers.videoflextok import VideoFlexTok


def block_facts(drawn: Samples, video: VideoGenerator) -> dict[str, Any]:
    """Return the mean tokens of each block, and how many samples gave it each level."""
    tokenizer = video.tokenizer
    levels = np.unique(drawn.tokens).tolist() if isinstance(tokenizer, VideoFlexTok) else tokenizer.config.levels
    histogram = [{str(level): int((block == level).sum()) for level in levels} for block in drawn.tokens.T]
    return {"tokens_per_block": drawn.tokens.mean(0).tolist(), "levels_per_block": histogram}


def show(config: dict[str, Any], real: ClipSet, fake: np.ndarray, drawn: Samples, names: list[str]) -> dict[str, Path]:
    """Write some samples to look at, round-robin over classes, and the tokens of all; return the files."""
    folder = Path(config["output"])
    chosen = gallery.in_turns(names or ["clip"] * len(fake), config["show"])
    real_beside = None if names else np.asarray(real.clips[chosen])
    files = gallery.write_samples(
        folder,
        fake[chosen],
        {number: names[number] if names else "" for number in chosen},
        drawn.tokens[chosen],
        beside=real_beside,
        moving=config["moving"],
        fps=config["fps"],
    )
    table = pd.DataFrame(drawn.tokens, columns=[f"block_{number}" for number in range(drawn.tokens.shape[1])])
    if names:
        table.insert(0, "class", names)
    table.rename_axis("sample").to_csv(folder / "tokens.csv")
    return {**files, "tokens": folder / "tokens.csv"}
