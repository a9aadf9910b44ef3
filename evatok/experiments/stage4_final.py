"""Stage 4: train the final tokenizer from scratch, each clip under the assignment a router names (EVATok Sec. 3.4).

The router is frozen and sees the clip as the tokenizer does, mirrored or not; `assignment=uniform` trains the baseline
of fixed length, `assignment=random` a proxy under the same recipe. Run again, the same command goes on where a killed
one stopped.

    python -m evatok.experiments.stage4_final with toy
    python -m evatok.experiments.stage4_final with toy discriminator=semantic assignment=uniform
    python -m evatok.experiments.stage4_final print_config
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evatok.experiments import tokenizer_training, tracking
from evatok.experiments.tokenizer_training import PAPER, SMALL, TOY, Plan, quality_under, train_tokenizer
from evatok.routing.trained_router import Router
from evatok.tokenizers.evatok import TokenizerConfig, expand_assignment
from evatok.training.objective import Assign

ex = tracking.experiment("stage4_final", __doc__)
ex.config(tokenizer_training.settings)


@ex.config
def config() -> None:
    assignment = "router"  # who names the assignments: router, uniform (the baseline) or random (as for a proxy)
    router = "results/checkpoints/router-toy-pyramid-matched.safetensors"  # w_q and w_l are the router's [suppl. B]
    uniform_tokens = 0  # tokens a block of uniform; 0: the second longest level (paper: 256)
    discriminator = "semantic"  # none, transformer (LARP's) or semantic (on a frozen VideoMAE) [Sec. 3.4]
    alignment = "results/checkpoints/videomae-toy"  # (paper: V-JEPA2-L)
    adversarial_weight = 0.5  # (not stated; GigaTok: 0.5)
    work = "results/work/stage4_final"  # folder of the resumable state and the curve
    checkpoint = "results/work/stage4_final/final.safetensors"  # where the finished tokenizer goes
    seed = 0


# Few steps: the opponent joins once there is a picture, learns faster, and never outweighs the pixels.
ex.add_named_config(
    "toy",
    {**TOY, "data": "mixed", "adversarial_weight": 0.3, "adversarial_adaptive": True}
    | {"discriminator_start": 200, "discriminator_rate": 3e-4},
)
ex.add_named_config("small", {**SMALL, "uniform_tokens": 256})
ex.add_named_config(
    "paper",
    {**PAPER, "steps": 1000000, "discriminator": "semantic", "semantic_encoder": "MCG-NJU/videomae-base"}
    | {"semantic_resize": 224, "discriminator_start": 80000, "discriminator_interval": 1, "uniform_tokens": 256},
)


@tracking.main(ex)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    def plan(shape: TokenizerConfig) -> Plan:
        assign, parents, facts = assignment_of(config, shape)
        return Plan(
            kind="stage4_final",
            assign=assign,
            parents=parents,
            facts={"stage": 4, "assignment": config["assignment"], **facts},
            measure=lambda tokenizer, clips: quality_under(tokenizer, clips, assign, config),
        )

    return train_tokenizer(config, tracker, plan)


def assignment_of(config: dict[str, Any], shape: TokenizerConfig) -> tuple[Assign, dict[str, str], dict[str, Any]]:
    """The configured rule, the hash of what it stands on, and its facts.

    Raises:
        ConfigError: no such rule, or tokens that are no level.
        CheckpointError, RoutingError: a router that is absent, damaged, or made for other levels.
    """
    if config["assignment"] == "random":
        return (lambda clips, generator: shape.candidates.sample(len(clips), generator)), {}, {}
    if config["assignment"] == "uniform":
        tokens = config["uniform_tokens"] or shape.candidates.baseline
        if tokens not in shape.levels:
            raise tracking.ConfigError(f"config key uniform_tokens: {tokens} is none of the levels {shape.levels}")
        row = (tokens,) * shape.candidates.blocks
        return (lambda clips, generator: expand_assignment(row, len(clips))), {}, {"row": [tokens]}
    if config["assignment"] == "router":
        router = Router.load(Path(config["router"]))
        router.check_fits(shape)
        router.module.requires_grad_(False).to(config["device"])
        return (
            (lambda clips, generator: router.assign(clips)),
            {"router": router.checkpoint.sha256},
            {"w_q": router.point.w_q},
        )
    raise tracking.ConfigError(f"config key assignment: {config['assignment']!r} is none of router, uniform and random")


if __name__ == "__main__":
    tracking.command_line(ex)
