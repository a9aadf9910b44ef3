"""Stage 4: train the final tokenizer from scratch, each clip under the assignment its router picks (EVATok Sec. 3.4).

The router is frozen and sees the clip as the tokenizer does, mirrored or not; `assignment=uniform` trains the
fixed-length baseline, `assignment=random` a proxy under the same recipe. Rerun the command to resume a killed run.

    python -m evatok.experiments.stage4_final with toy
    python -m evatok.experiments.stage4_final with toy discriminator=transformer assignment=uniform
    python -m evatok.experiments.stage4_final with embedded assignment=uniform
    python -m evatok.experiments.stage4_final print_config
"""

from __future__ import annotations

from typing import Any

from evatok.assignments.rules import Fixed, Random, Rule
from evatok.experiments import image_settings, keys, tokenizer_training, tracking
from evatok.experiments.setting import TRAINING, uniform_tokens
from evatok.experiments.tokenizer_measures import quality_under
from evatok.experiments.tokenizer_training import PAPER, SMALL, TOY, Plan, train_tokenizer
from evatok.routing.rules import load_routed
from evatok.tokenizers.evatok import TokenizerConfig

ex = tracking.experiment("stage4_final", __doc__, keys.STAGE | keys.DECODING)
ex.config(tokenizer_training.settings)


@ex.config
def config() -> None:
    assignment = "router"
    router = "results/checkpoints/router-toy-pyramid-matched.safetensors"  # w_q and w_l are the router's [suppl. B]
    uniform_tokens = 0  # paper: 256
    discriminator = "semantic"  # [Sec. 3.4]
    alignment = "results/checkpoints/videomae-toy"  # paper: V-JEPA2-L
    adversarial_weight = 0.5  # not stated; GigaTok: 0.5
    work = "results/work/stage4_final"
    checkpoint = "results/work/stage4_final/final.safetensors"
    seed = 0


# Feature maps of 8 x 8 and 4 x 4, of as many frames as a block has: half the cost of all frames on the small VideoMAE.
_TOY = {
    **TOY,
    "data": "mixed",
    "discriminator_rate": 3e-4,
    "semantic_encoder": "efficientnet-lite0",
    "semantic_layers": [5, 11],
    "semantic_frames": 4,
    "semantic_lecam": 0.1,
}
# Short schedule: the discriminator joins once there is a picture, learns faster, and never outweighs the pixels.
ex.add_named_config(
    "toy", {**_TOY, "adversarial_weight": 0.3, "adversarial_adaptive": True, "discriminator_start": 200}
)
# What ships is fine-tuned from the finished proxy, under its own assignments, at a rate that keeps its knowledge; the
# discriminator trains before it enters the loss, with a small weight.
ex.add_named_config(
    "embedded",
    {
        **_TOY,
        "start_from": "results/checkpoints/proxy-toy-motion.safetensors",
        "validation_data": "freedoom",
        "validation_clips": 320,
        "steps": 2000,
        "learning_rate": 4e-4,
        "alignment": "none",
        "perceptual": "st-lpips",
        "perceptual_frames": 1,
        "perceptual_weight": 0.1,
        "discriminator_start": 0,
        "discriminator_warmup": 100,
        "adversarial_adaptive": False,
        "adversarial_weight": 0.1,
        "uniform_tokens": 64,
    },
)
# The router from stage 3, and the shipped encoder, which takes 64 pixels.
ex.add_named_config(
    "small",
    {
        **SMALL,
        "router": "results/work/stage3_router/router.safetensors",
        "alignment_resize": 64,
        "semantic_resize": 64,
        "semantic_layers": TOY["semantic_layers"],
        "uniform_tokens": 256,
    },
)
ex.add_named_config(
    "paper",
    {
        **PAPER,
        "router": "results/work/stage3_router/router.safetensors",
        "steps": 1000000,
        "discriminator": "semantic",
        "semantic_encoder": "MCG-NJU/videomae-base",
    }
    | {"semantic_resize": 224, "discriminator_start": 80000, "discriminator_interval": 1, "uniform_tokens": 256},
)
# Images: the proxy's recipe from scratch, with the paper's patch discriminator; at toy size it is fine-tuned from the
# finished proxy, as videos do.
ex.add_named_config(
    "image_toy",
    {
        **image_settings.TOY,
        "start_from": "results/checkpoints/image-proxy-toy.safetensors",
        "router": "results/checkpoints/image-router-toy.safetensors",
        "steps": 1500,
        "learning_rate": 5e-4,
        "alignment": "none",
        # Not on EfficientNet's features, whose distance judges the result; and adaptive: a fixed weight, though small
        # for a semantic discriminator lets this one ruin the picture within 100 steps.
        "discriminator": "patch",
        "discriminator_rate": 3e-4,
        "discriminator_warmup": 100,
        "adversarial_adaptive": True,
        "adversarial_weight": 0.1,
    },
)
ex.add_named_config("image_small", {**image_settings.SMALL, "alignment": "none", "discriminator": "patch"})
ex.add_named_config("image_paper", image_settings.PAPER)


@tracking.main(ex, TRAINING, plan="tokenizer_cost")
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    def plan(shape: TokenizerConfig) -> Plan:
        rule = rule_of(config, shape)
        return Plan(
            kind="stage4_final",
            rule=rule,
            facts={"stage": 4},
            measure=lambda tokenizer, clips: quality_under(tokenizer, clips, rule, config),
        )

    return train_tokenizer(config, tracker, plan)


def rule_of(config: dict[str, Any], shape: TokenizerConfig) -> Rule:
    """Return the configured assignment rule.

    Raises:
        ConfigError: an unknown rule, or tokens that are not one of the levels.
        CheckpointError, RoutingError: a router that is missing, damaged, or made for other levels.
    """
    if config["assignment"] == "random":
        return Random(shape.candidates, config["seed"])
    if config["assignment"] == "uniform":
        return Fixed(shape.candidates, [uniform_tokens(config, shape, shape.candidates.baseline)])
    if config["assignment"] == "router":
        return load_routed(config["router"], shape, config["device"])
    raise tracking.ConfigError(f"config key assignment: {config['assignment']!r} is not one of router, uniform, random")


if __name__ == "__main__":
    tracking.command_line(ex)
