"""VideoFlexTok, stage 1: train encoder, quantiser and flow decoder together (VideoFlexTok Sec. 3.1, 3.2).

The controls of the paper are the same network with other keys: form=flat (Table 2), decoder_mask=full (Table 3),
form=grid (Appendix D), alignment=none (Fig. 9); ours is kept=all, pooled registers without nested dropout. Run again,
the same command resumes where a killed one stopped.

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
from evatok.experiments import tracking, videoflextok_training
from evatok.experiments.videoflextok_parts import FlexPlan, clips_of, codec_of, shape_of, spread
from evatok.experiments.videoflextok_training import PAPER, SMALL, train_videoflextok
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.initialise import initialise

ex = tracking.experiment("videoflextok_stage1", __doc__)
ex.config(videoflextok_training.settings)
STARTS = ("whitened", "plain")


@ex.config
def config() -> None:
    size = "toy"  # toy, small, paper (d18-d18), paper-d12 (d12-d12) or paper-d28 (d18-d28)
    frames = 0  # frames per clip, 4T or 4T + 1; 0: the size's own
    codec = ""  # patch-pca or vidtok; empty: the size's own
    latents = ""  # folder of VidTok's weights
    latent_clips = 1000  # training clips that patch-pca is fitted to
    form = ""  # time-causal (the paper's), flexible, flat or grid; empty: the size's own
    decoder_mask = ""  # causal (the paper's stage 1) or full; empty: the size's own
    drop = ""  # dropped tokens: truncate, or mask (the paper's); empty: the size's own
    registers = 0  # most tokens per latent frame; 0: the size's own
    codebook_size = 0  # FSQ codes; 0: 64000
    start = "whitened"  # whitened (pooled registers, orthogonal embeddings, open gates) or plain (the paper's)
    alignment = "results/checkpoints/videomae-toy"  # encoder that the decoder is to resemble, or none (paper: DINOv2-L)
    work = "results/work/videoflextok_stage1"  # folder of the resumable state and the curve
    checkpoint = "results/work/videoflextok_stage1/videoflextok.safetensors"  # where the tokenizer goes


ex.add_named_config("toy", {"size": "toy"})
ex.add_named_config("small", {**SMALL, "size": "small", "alignment": "facebook/dinov2-large"})
ex.add_named_config("paper", {**PAPER, "size": "paper", "alignment": "facebook/dinov2-large", "start": "plain"})


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    if config["start"] not in STARTS:
        raise tracking.ConfigError(f"config key start: {config['start']!r} is none of {', '.join(STARTS)}")
    keys = ("frames", "codec", "form", "decoder_mask", "drop", "registers", "codebook_size")
    shape = shape_of(config, **{key: config[key] for key in keys})
    shape = replace(shape, pooled=config["start"] == "whitened" and shape.form != "grid")
    clips = clips_of(config, shape)
    return train_videoflextok(config, tracker, clips, plan(config, shape, clips[0]))


def plan(config: dict[str, Any], shape: VideoFlexTokConfig, train_set: ClipSet) -> FlexPlan:
    """A fresh network on its codec."""
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
