"""VideoFlexTok, stage 2: fine-tune the decoder on a frozen encoder's codes (VideoFlexTok F.1).

The decoder gets full attention, and with probability 0.5 the first latent frame clean, so that edits of it and the
chunks of long clips can be decoded. decoder_mask=causal is the control that the paper lacks: the same steps, the same
conditioning, without the other attention.

    python -m evatok.experiments.videoflextok_stage2 with toy tokenizer=PATH
    python -m evatok.experiments.videoflextok_stage2 with toy tokenizer=PATH decoder_mask=causal work=FOLDER
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evatok.experiments import tracking, videoflextok_training
from evatok.experiments.videoflextok_parts import FlexPlan, clips_of
from evatok.experiments.videoflextok_training import PAPER, SMALL, train_videoflextok
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTok
from evatok.tokenizers.videoflextok.config import DECODER_MASKS

ex = tracking.experiment("videoflextok_stage2", __doc__)
ex.config(videoflextok_training.settings)


@ex.config
def config() -> None:
    size = "toy"  # the tokenizer's size
    tokenizer = "results/work/videoflextok_stage1/videoflextok.safetensors"  # checkpoint of stage 1
    latents = ""  # folder of VidTok's weights, for a tokenizer on its latents
    decoder_mask = "full"  # full (the paper's stage 2), or causal (a control)
    first_probability = 0.5  # of giving the first latent frame (paper: 0.5)
    alignment = "none"  # encoder to go on resembling; a new head is needed for it (not stated)
    steps = 1000
    learning_rate = 5e-4
    work = "results/work/videoflextok_stage2"  # folder of the resumable state and the curve
    checkpoint = "results/work/videoflextok_stage2/videoflextok.safetensors"  # where the tokenizer goes


_LONG = {"steps": 10000, "learning_rate": 1e-4}
ex.add_named_config("toy", {"size": "toy"})
ex.add_named_config("small", {**SMALL, **_LONG, "size": "small"})
ex.add_named_config("paper", {**PAPER, **_LONG, "size": "paper"})


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    if config["decoder_mask"] not in DECODER_MASKS:
        known = ", ".join(DECODER_MASKS)
        raise tracking.ConfigError(f"config key decoder_mask: {config['decoder_mask']!r} is none of {known}")
    if not 0 <= config["first_probability"] <= 1:
        raise tracking.ConfigError("config key first_probability: it must lie between 0 and 1")
    first, checkpoint = VideoFlexTok.load(Path(config["tokenizer"]), codec=config["latents"] or None)
    clips = clips_of(config, first.config)
    network = FlexNetwork(replace(first.config, decoder_mask=config["decoder_mask"]))
    network.load_state_dict(first.network.state_dict())
    plan = FlexPlan(
        kind="videoflextok_stage2",
        network=network,
        codec=first.codec,
        parents={"tokenizer": checkpoint.sha256, "codec": first.codec.identity()},
        facts={**{key: checkpoint.facts[key] for key in ("start",) if key in checkpoint.facts}, "stage": 2},
        alignment=config["alignment"],
        first_probability=config["first_probability"],
        frozen_encoder=True,
    )
    return train_videoflextok(config, tracker, clips, plan)


if __name__ == "__main__":
    tracking.command_line(ex)
