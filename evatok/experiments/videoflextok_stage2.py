"""VideoFlexTok, stage 2: fine-tune the decoder on a frozen encoder's codes (VideoFlexTok F.1).

The decoder gets full attention and, with probability 0.5, a clean first latent frame, so that edits of it and the
chunks of long clips can be decoded. decoder_mask=causal is a control missing from the paper: same steps, same
conditioning, but causal attention.

    python -m evatok.experiments.videoflextok_stage2 with toy tokenizer=PATH
    python -m evatok.experiments.videoflextok_stage2 with toy tokenizer=PATH decoder_mask=causal work=FOLDER
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evatok.experiments import keys, runner, tracking, videoflextok_training
from evatok.experiments.setting import TRAINING
from evatok.experiments.videoflextok_parts import FlexPlan, clips_of
from evatok.experiments.videoflextok_training import PAPER, SMALL, FlexTask
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTok

ex = tracking.experiment("videoflextok_stage2", __doc__, keys.RUN | keys.TRAINING)
ex.config(videoflextok_training.settings)


@ex.config
def config() -> None:
    tokenizer = "results/work/videoflextok_stage1/videoflextok.safetensors"
    latents = ""
    decoder_mask = "full"  # paper: full; causal is a control
    first_probability = 0.5  # paper: 0.5
    alignment = "none"  # not stated
    steps = 1000
    learning_rate = 5e-4
    work = "results/work/videoflextok_stage2"
    checkpoint = "results/work/videoflextok_stage2/videoflextok.safetensors"


_LONG = {"steps": 10000, "learning_rate": 1e-4}
ex.add_named_config("toy", {"size": "toy"})
ex.add_named_config("small", {**SMALL, **_LONG, "size": "small"})
ex.add_named_config("paper", {**PAPER, **_LONG, "size": "paper"})


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, task)


def task(config: dict[str, Any]) -> FlexTask:
    """Return the task of fine-tuning the decoder of a stage 1 tokenizer."""
    first = VideoFlexTok.load(config["tokenizer"], codec=config["latents"] or None)
    checkpoint = first.checkpoint
    network = FlexNetwork(replace(first.config, decoder_mask=config["decoder_mask"] or first.config.decoder_mask))
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
    return FlexTask(config, clips_of(config, first.config), lambda _: plan)


if __name__ == "__main__":
    tracking.command_line(ex)
