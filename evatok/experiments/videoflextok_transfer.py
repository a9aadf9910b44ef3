"""VideoFlexTok Fig. 4: decode tokens of one clip with another's first frame; which sets motion, which appearance?

The decoder of stage 2 is given a clip's first latent frame clean, and a few tokens per latent frame of another clip.
Frame changes are then correlated with those of either clip, and pixels compared with either. A clip's tokens with its
own first frame are the upper bound; each clip borrows the first frame of the next one.

    python -m evatok.experiments.videoflextok_transfer with tokenizer=PATH                CPU, minutes
    python -m evatok.experiments.videoflextok_transfer with tokenizer=PATH kept=[1,2,4] clips=320
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet, from_network, network_batches
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import autocast, set_threads
from evatok.experiments.videoflextok_measurement import record_of, tokenizer_of, validation_clips
from evatok.metrics import catalogue
from evatok.metrics.bootstrap import bootstrap, bootstrap_statistic
from evatok.metrics.motion import correlation_of, motion_moments
from evatok.metrics.pixels import l1
from evatok.pictures import gallery
from evatok.storage.records import Metric
from evatok.tokenizers.videoflextok import VideoFlexTok

ex = tracking.experiment("videoflextok_transfer", __doc__, keys.RUN)
OF = ("tokens", "frame")
"""Which clip a sample is compared with: the one of its tokens, or the one of its first frame."""


@ex.config
def config() -> None:
    tokenizer = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"
    latents = ""
    data = "freedoom"
    fps = None
    clips = 64
    kept = [1, 2, 4]  # paper: 1 or 2 [Fig. 4]
    flow_steps = 20  # paper: 30 to 40
    flow_guidance = 1.0
    noise_seed = 0
    batch = 8
    show = 4
    output = "results/work/videoflextok_transfer/shown"
    bf16 = None
    seed = 0


ex.add_named_config("toy", {"size": "toy"})


@tracking.main(ex, Outputs(folders=("output", "records_folder"), owned=("output",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    tokenizer = tokenizer_of(config)
    clips = validation_clips(config, tokenizer)
    if len(clips) < 2:
        raise tracking.ConfigError("config key clips: a clip borrows the first frame of another, so two are needed")
    metrics: dict[str, Metric] = {}
    for tokens in config["kept"]:
        for own in (False, True):
            made = drawn(tokenizer, clips, config, tokens, own)
            metrics |= measured(clips, made, f"k{tokens}_{'own' if own else 'borrowed'}", own)
            if config["output"] and not own:
                tracker.artifact(_shown(config, clips, made, tokens))
    record = record_of(
        "videoflextok_transfer", config, tracker, tokenizer, clips, metrics, first_frame="of the next clip"
    )
    return {"record": tracker.record(record), "metrics": {name: metric.value for name, metric in metrics.items()}}


def drawn(tokenizer: VideoFlexTok, clips: ClipSet, config: dict[str, Any], tokens: int, own: bool) -> np.ndarray:
    """Decode samples uint8 (N, F, H, W, 3) of every clip's tokens with its own first frame, or the next clip's."""
    real, first = np.asarray(clips.clips), tokenizer.config.first_frames
    given = real if own else np.roll(real, -1, axis=0)
    made = []
    for (coded, numbers), (frames, _) in zip(
        network_batches(real, config["batch"], config["device"]),
        network_batches(given[:, :first], config["batch"], config["device"]),
        strict=True,
    ):
        with autocast(config):
            codes = tokenizer.encode(coded, tokenizer.lengths(tokens, len(coded)))
            clip = tokenizer.decode(
                codes,
                steps=config["flow_steps"],
                guidance=config["flow_guidance"],
                seed=config["noise_seed"],
                indices=numbers,
                first=frames,
            )
        made.append(from_network(clip))
    return np.concatenate(made)


def measured(clips: ClipSet, made: np.ndarray, name: str, own: bool) -> dict[str, Metric]:
    """Compute L1 and change correlation with the clip of the tokens and, if different, with that of the first frame."""
    real = np.asarray(clips.clips)
    found: dict[str, Metric] = {}
    for which, reference in zip(OF, (real, np.roll(real, -1, axis=0)), strict=True):
        if own and which == "frame":
            continue
        pairs = list(zip(network_batches(reference, 16), network_batches(made, 16), strict=True))
        errors = torch.cat([l1(one, other) for (one, _), (other, _) in pairs]).double().numpy()
        moments = np.concatenate([motion_moments(one, other).numpy() for (one, _), (other, _) in pairs])
        found[f"l1_{name}_{which}"] = _of("l1", errors.mean(), len(made), bootstrap(errors))
        value = correlation_of(moments)
        if np.isfinite(value):  # otherwise no clip changes
            interval = bootstrap_statistic(moments, correlation_of)
            found[f"motion_correlation_{name}_{which}"] = _of("motion_correlation", value, len(made), interval)
    return found


def _of(name: str, value: float, count: int, interval: Any) -> Metric:
    return catalogue.of(name).measured(float(value), count, (interval.high - interval.low) / 2)


def _shown(config: dict[str, Any], clips: ClipSet, made: np.ndarray, tokens: int) -> Path:
    """Write a few samples beside the clips of their tokens; return the sheet."""
    some = np.arange(min(config["show"], len(made)))
    files = gallery.write_samples(
        Path(config["output"]) / f"k{tokens}",
        made[some],
        {int(number): "" for number in some},
        np.full((len(some), 1), tokens),
        beside=np.asarray(clips.clips)[some],
        moving="clips.mp4",
        fps=8.0,
    )
    return files["sheet"]


if __name__ == "__main__":
    tracking.command_line(ex)
