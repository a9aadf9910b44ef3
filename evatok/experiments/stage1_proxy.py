"""Stage 1: train the proxy tokenizer under random assignments (EVATok Sec. 3.1).

Every clip of every batch draws its own assignment, uniformly from all candidates, so that one model can later
reconstruct any clip under any assignment. Rerun the command to resume a killed run.

    python -m evatok.experiments.stage1_proxy with toy        CPU, 5 minutes
    python -m evatok.experiments.stage1_proxy with embedded   CPU, hours: the proxy that ships
    python -m evatok.experiments.stage1_proxy with image_toy   images instead of videos: CPU, an hour
    python -m evatok.experiments.stage1_proxy print_config
"""

from __future__ import annotations

from typing import Any

from evatok.assignments.rules import Fixed, Random
from evatok.data.clips import ClipSet
from evatok.experiments import image_settings, keys, tokenizer_training, tracking
from evatok.experiments.setting import TRAINING
from evatok.experiments.tokenizer_measures import quality_under
from evatok.experiments.tokenizer_training import PAPER, SMALL, TOY, Plan, train_tokenizer
from evatok.storage import records
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig

ex = tracking.experiment("stage1_proxy", __doc__, keys.STAGE | keys.DECODING)
ex.config(tokenizer_training.settings)


@ex.config
def config() -> None:
    work = "results/work/stage1_proxy"
    checkpoint = "results/work/stage1_proxy/proxy.safetensors"
    seed = 0


ex.add_named_config("toy", {**TOY, "train_clips": 1600})
ex.add_named_config("small", SMALL)
ex.add_named_config("paper", PAPER)
ex.add_named_config("image_toy", image_settings.TOY)
ex.add_named_config("image_small", image_settings.SMALL)
ex.add_named_config("image_paper", image_settings.proxy(image_settings.PAPER))


@ex.named_config
def embedded() -> None:
    data = "mixed"
    validation_data = "freedoom"
    validation_clips = 320
    steps = 5600
    learning_rate = 1.5e-3
    ema = 0.998
    perceptual = "st-lpips"
    perceptual_frames = 1
    perceptual_weight = 0.1
    work = "results/work/embedded/stage1_proxy"
    checkpoint = "results/checkpoints/proxy-toy-motion.safetensors"


@tracking.main(ex, TRAINING, plan="tokenizer_cost")
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    def plan(shape: TokenizerConfig) -> Plan:
        return Plan(
            kind="stage1_proxy",
            rule=Random(shape.candidates, config["seed"]),
            facts={"stage": 1},
            measure=lambda tokenizer, clips: uniform_quality(tokenizer, clips, config),
        )

    return train_tokenizer(config, tracker, plan)


def uniform_quality(tokenizer: AdaptiveTokenizer, clips: ClipSet, config: dict[str, Any]) -> dict[str, records.Metric]:
    """Measure PSNR and motion with every block at one level, as "<metric>_uniform_<tokens per block>"."""
    metrics: dict[str, records.Metric] = {}
    for level in tokenizer.config.levels:
        found = quality_under(tokenizer, clips, Fixed(tokenizer.config.candidates, [level]), config)
        metrics |= {f"{name}_uniform_{level}": value for name, value in found.items() if name != "mean_tokens"}
    return metrics


if __name__ == "__main__":
    tracking.command_line(ex)
