"""Long clips with VideoFlexTok: chunks conditioned on the previous one, and independent ones (Sec. 3.4, Fig. 8).

Conditioned chunks are given the last generated frames of the previous chunk, which the decoder learns in stage 2. The
seam ratio tells whether chunks join: the frame change at seams over that elsewhere.

    python -m evatok.experiments.videoflextok_long with tokenizer=PATH                CPU, minutes
    python -m evatok.experiments.videoflextok_long with tokenizer=PATH frames=100 kept=[1,4,16]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from evatok.data.clips import ClipSet, network_batches
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import autocast, set_threads
from evatok.experiments.videoflextok_measurement import record_of, tokenizer_of, validation_clips
from evatok.metrics import catalogue
from evatok.metrics.pixels import psnr
from evatok.storage.records import Metric
from evatok.tokenizers.videoflextok import VideoFlexTok
from evatok.tokenizers.videoflextok.long import decode_long, encode_long, seam_ratio, seams

ex = tracking.experiment("videoflextok_long", __doc__, keys.RUN)
MODES = {"conditioned": True, "alone": False}


@ex.config
def config() -> None:
    tokenizer = "results/work/videoflextok_stage2/videoflextok.safetensors"
    latents = ""
    data = "freedoom"
    fps = None
    frames = 64  # paper: 81, in chunks of 17 that share 1
    clips = 16
    kept = [4]  # paper: 32 of 256
    flow_steps = 20  # paper: 30 to 40
    flow_guidance = 1.0
    noise_seed = 0
    batch = 8
    bf16 = None
    seed = 0


ex.add_named_config("toy", {"size": "toy"})


@tracking.main(ex, Outputs(folders=("records_folder",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    tokenizer = tokenizer_of(config)
    at = seams(tokenizer.config, config["frames"])
    if not at:
        raise tracking.ConfigError(
            f"config key frames: {config['frames']} frames are a single chunk without a seam; give more"
        )
    clips = validation_clips(config, tokenizer, config["frames"])
    real = mean_of(
        [seam_ratio(real, at) for real, _ in network_batches(clips.clips, config["batch"], config["device"])],
        "seam_ratio",
    )
    metrics = {"seam_ratio_real": replace(real, direction=None)}  # on real clips: a reference, neither better nor worse
    for tokens in config["kept"]:
        for mode in MODES:
            metrics |= measured(tokenizer, clips, config, tokens, mode)
    record = record_of(
        "videoflextok_long", config, tracker, tokenizer, clips, metrics, frames=config["frames"], seams=at
    )
    return {"record": tracker.record(record), "metrics": {name: metric.value for name, metric in metrics.items()}}


def measured(
    tokenizer: VideoFlexTok, clips: ClipSet, config: dict[str, Any], tokens: int, mode: str
) -> dict[str, Metric]:
    """Measure PSNR, seam ratio and tokens per clip at one length, with chunks conditioned or independent."""
    at, values, ratios, counts = seams(tokenizer.config, config["frames"]), [], [], []
    for real, numbers in network_batches(clips.clips, config["batch"], config["device"]):
        with autocast(config):
            codes = encode_long(tokenizer, real, tokens, conditioned=MODES[mode])
            made = decode_long(
                tokenizer,
                codes,
                steps=config["flow_steps"],
                guidance=config["flow_guidance"],
                seed=config["noise_seed"],
                indices=numbers,
            ).float()
        values.append(psnr(real, made))
        ratios.append(seam_ratio(made, at))
        counts.append(codes.tokens.float())
    name = f"k{tokens}_{mode}"
    return {
        f"psnr_{name}": mean_of(values, "psnr"),
        f"seam_ratio_{name}": mean_of(ratios, "seam_ratio"),
        f"tokens_{name}": mean_of(counts, "mean_tokens"),
    }


def mean_of(parts: list[torch.Tensor], name: str) -> Metric:
    """Average over the clips with a value; the spread is half the normal 95 % interval."""
    values = torch.cat([part.cpu() for part in parts]).double()
    values = values[values.isfinite()]
    if not len(values):
        raise tracking.ConfigError("config key data: none of the clips changes from frame to frame")
    half = float(1.96 * values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return catalogue.of(name).measured(float(values.mean()), len(values), half)


if __name__ == "__main__":
    tracking.command_line(ex)
