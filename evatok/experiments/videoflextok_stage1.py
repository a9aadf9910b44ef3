"""VideoFlexTok, stage 1: train encoder, quantiser and flow decoder together (VideoFlexTok Sec. 3.1, 3.2).

The paper's controls are the same network with other keys: form=flat (Table 2), decoder_mask=full (Table 3), form=grid
(Appendix D), alignment=none (Fig. 9); our own control is kept=all, pooled registers without nested dropout. Rerun the
command to resume a killed run.

    python -m evatok.experiments.videoflextok_stage1 with toy          CPU, about an hour
    python -m evatok.experiments.videoflextok_stage1 with toy form=flat
    python -m evatok.experiments.videoflextok_stage1 with paper data=train.csv latents=FOLDER
    python -m evatok.experiments.videoflextok_stage1 print_config
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from evatok.data.clips import ClipSet, to_network
from evatok.experiments import keys, runner, tracking, videoflextok_training
from evatok.experiments.setting import TRAINING
from evatok.experiments.videoflextok_parts import FlexPlan, clips_of, codec_of, shape_of, spread
from evatok.experiments.videoflextok_training import PAPER, SMALL, FlexTask
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.initialise import initialise

ex = tracking.experiment("videoflextok_stage1", __doc__, keys.RUN | keys.TRAINING)
ex.config(videoflextok_training.settings)


@ex.config
def config() -> None:
    depths = ""
    frames = 0  # paper: 17
    codec = ""  # paper: vidtok
    latents = ""
    latent_clips = 1000
    form = ""  # paper: time-causal
    decoder_mask = ""  # paper: causal
    drop = ""  # paper: mask
    registers = 0  # paper: 256
    codebook_size = 0  # paper: 64000
    start = "whitened"  # paper: plain
    alignment = "results/checkpoints/videomae-toy"  # paper: DINOv2-L
    work = "results/work/videoflextok_stage1"
    checkpoint = "results/work/videoflextok_stage1/videoflextok.safetensors"


ex.add_named_config("toy", {"size": "toy"})
ex.add_named_config("small", {**SMALL, "size": "small", "alignment": "facebook/dinov2-large"})
ex.add_named_config("paper", {**PAPER, "size": "paper", "alignment": "facebook/dinov2-large", "start": "plain"})


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, task)


def task(config: dict[str, Any]) -> FlexTask:
    """Return the task of a fresh network of the configured shape."""
    names = ("frames", "codec", "form", "decoder_mask", "drop", "registers", "codebook_size")
    shape = shape_of(config, **{name: config[name] for name in names})
    shape = replace(shape, pooled=config["start"] == "whitened" and shape.form != "grid")
    return FlexTask(config, clips_of(config, shape), lambda train_set: plan(config, shape, train_set))


def plan(config: dict[str, Any], shape: VideoFlexTokConfig, train_set: ClipSet) -> FlexPlan:
    """Return the plan of a fresh network on its codec."""
    codec = codec_of(config, shape, train_set)
    torch.manual_seed(config["seed"])
    network = FlexNetwork(replace(shape, codec_sha256=codec.identity()))
    if config["start"] == "whitened":
        initialise(network, codec.encode(to_network(spread(train_set))))
    return FlexPlan(
        kind="videoflextok_stage1",
        network=network,
        codec=codec,
        parents={"codec": codec.identity()},
        facts={"stage": 1, "start": config["start"]},
        alignment=config["alignment"],
    )


if __name__ == "__main__":
    tracking.command_line(ex)
