"""The generator that is sampled, as configured, and what a sample costs."""

from __future__ import annotations

from typing import Any

from evatok.evaluation.flexible import decoder_flops
from evatok.generation.flops import generator_operations
from evatok.generation.order import OrderedGrammar
from evatok.generation.samples import SampleRequest
from evatok.generation.video_generator import Flow, VideoGenerator
from evatok.tokenizers.videoflextok import VideoFlexTok


def generator_of(config: dict[str, Any]) -> VideoGenerator:
    """The configured generator, with its tokenizer. Raises as `VideoGenerator.of_checkpoint`."""
    flow = Flow(config["flow_steps"], config["flow_guidance"], config["seed"])
    return VideoGenerator.load(
        config["generator"],
        config["device"],
        tokenizer=config["tokenizer"],
        latents=config["latents"] or None,
        kept=config["kept"],
        flow=flow,
    )


def cost_facts(wish: SampleRequest, tokens: float) -> dict[str, Any]:
    """Operations per clip of the generator, and of a flow decoder, whose settings are named."""
    video = wish.video
    symbols, guided = tokens + video.grammar.headers, wish.options.guidance != 1
    facts: dict[str, Any] = {"generator_flops": generator_operations(video.module.config, symbols, guided=guided)}
    if isinstance(video.tokenizer, VideoFlexTok) and isinstance(video.grammar, OrderedGrammar):
        flow = video.flow
        passes = flow.steps * (1 if flow.guidance == 1 else 2)
        facts |= {"flow_steps": flow.steps, "flow_guidance": flow.guidance, "noise_seed": flow.seed}
        facts["decoder_flops"] = passes * decoder_flops(video.tokenizer, video.grammar.kept)
    return facts
