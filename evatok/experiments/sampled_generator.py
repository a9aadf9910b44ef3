"""The configured generator to sample from, and the cost per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evatok.evaluation.flexible import decoder_flops
from evatok.experiments.tracking import ConfigError
from evatok.generation.drawing import Sampling
from evatok.generation.flops import generator_operations, trunk_parameters
from evatok.generation.order import OrderedGrammar
from evatok.generation.samples import SampleRequest
from evatok.generation.video_generator import Flow, VideoGenerator
from evatok.tokenizers.videoflextok import VideoFlexTok


def generator_of(config: dict[str, Any]) -> VideoGenerator:
    """Load the configured generator with its tokenizer. Raises as `VideoGenerator.of_checkpoint`."""
    flow = Flow(config["flow_steps"], config["flow_guidance"], config["seed"])
    return VideoGenerator.load(
        config["generator"],
        config["device"],
        tokenizer=config["tokenizer"],
        latents=config["latents"] or None,
        kept=config["kept"],
        text=config.get("text", ""),
        flow=flow,
    )


def ordered(video: VideoGenerator) -> OrderedGrammar:
    """Return the grammar of a generator on VideoFlexTok's codes. Raises ConfigError for one with length symbols."""
    if not isinstance(video.grammar, OrderedGrammar):
        raise ConfigError("config key generator: its sequences have length symbols; give one on VideoFlexTok's codes")
    return video.grammar


def request_of(config: dict[str, Any], video: VideoGenerator, names: Sequence[str]) -> SampleRequest:
    """Request one sample per class, in order, as configured. Raises GenerationError for an unknown class."""
    how = Sampling(config["guidance"], config["temperature"])
    numbers = [video.class_index(name) for name in names]
    return SampleRequest(
        video, len(names), numbers, None, config["seed"], how, batch=config["batch"], bf16=config["bf16"]
    )


def cost_facts(wish: SampleRequest, tokens: float) -> dict[str, Any]:
    """Count operations per clip of generator and flow decoder, with its settings, and those of the training."""
    video = wish.video
    symbols, guided = tokens + video.grammar.headers, wish.options.guidance != 1
    config = video.module.config
    facts: dict[str, Any] = {
        "generator_flops": generator_operations(config, symbols, guided=guided),
        "trunk_parameters": trunk_parameters(config),
        **_training_cost(video),
    }
    if isinstance(video.tokenizer, VideoFlexTok) and isinstance(video.grammar, OrderedGrammar):
        flow = video.flow
        passes = flow.steps * (1 if flow.guidance == 1 else 2)
        facts |= {"flow_steps": flow.steps, "flow_guidance": flow.guidance, "noise_seed": flow.seed}
        facts["decoder_flops"] = passes * decoder_flops(video.tokenizer, video.grammar.kept)
    return facts


def _training_cost(video: VideoGenerator) -> dict[str, float]:
    """Return the operations and tokens of the generator's training; nothing if its checkpoint does not say."""
    facts = video.checkpoint.facts
    told = [facts.get(name) for name in ("steps", "batch", "tokens_per_clip")]
    steps, batch, tokens = (float(value) if isinstance(value, int | float) else math.nan for value in told)
    if math.isnan(steps * batch * tokens):
        return {}
    each = generator_operations(video.module.config, tokens + video.grammar.headers, training=True)
    return {"training_flops": each * steps * batch, "training_tokens": tokens * steps * batch}
