"""What a generator on VideoFlexTok's codes is trained on: all K tokens of every clip, in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evatok.experiments.generator_lesson import Lesson, Part, classes_of, clips_of, coded, protocol_of, shape_of
from evatok.experiments.tracking import ConfigError
from evatok.generation import code_cache
from evatok.generation.captions import Reader
from evatok.generation.code_cache import labels_of
from evatok.generation.flex_codes import flex_coder
from evatok.generation.order import OrderedGrammar
from evatok.storage import checkpoints
from evatok.tokenizers.videoflextok import KIND, VideoFlexTok


def lesson_of(config: dict[str, Any]) -> Lesson:
    """Return the training data of the configured tokenizer, of either family. Raises as `Lesson.read` and `read`."""
    flexible = checkpoints.kind_of(Path(config["tokenizer"])) == KIND
    return read(config) if flexible else Lesson.read(config)


def read(config: dict[str, Any]) -> Lesson:
    """Load tokenizer, clips, classes and codes, computing the codes that are not cached.

    Raises:
        ConfigError: frame prediction, or captions for mirrored clips.
        CheckpointError, CodingError, GenerationError: see `Lesson.read`.
        GrammarError: an order or a number of tokens the tokenizer does not support.
        FlexTokError: frames that chunks do not divide.
    """
    if config["task"] == "frames":
        raise ConfigError("config key task: generators on VideoFlexTok's codes learn classes, set task=class, or text")
    if config["task"] == "text" and config["flip"]:
        raise ConfigError("config key flip: captions name left and right, which mirrored clips swap; set flip=False")
    tokenizer = VideoFlexTok.load(config["tokenizer"], config["device"], codec=config["latents"] or None)
    kept, frames = config["kept"], config["frames"]
    grammar = OrderedGrammar.of(tokenizer.config, config["order"], frames=frames, most=kept)
    clips = {name: clips_of(config, tokenizer.config, name, frames) for name in ("train", "validation")}
    reader = Reader.of(config["text"]) if config["task"] == "text" else None
    classes, numbers = ([], {}) if reader else classes_of(config, clips)
    said = {name: reader.read(labels_of(its, "caption").tolist()) for name, its in clips.items()} if reader else {}
    coder = flex_coder(tokenizer, kept, frames=frames, bf16=config["code_bf16"])
    parts = {
        name: Part(coded(coder, its, config, name), numbers.get(name), None, said.get(name))
        for name, its in clips.items()
    }
    return Lesson(
        parts["train"],
        parts["validation"],
        grammar,
        shape_of(config, grammar, len(classes), 0, reader),
        {"tokenizer": tokenizer.checkpoint.sha256, "clips": clips["train"].sha256},
        facts_of(config, classes, grammar, tokenizer) | text_facts(reader),
        protocol_of(config, clips),
    )


def facts_of(
    config: dict[str, Any], classes: list[str], grammar: OrderedGrammar, tokenizer: VideoFlexTok
) -> dict[str, Any]:
    """Describe the training for the checkpoint's header; sampling needs task, classes, prefix and order."""
    told = {name: config[name] for name in ("task", "size", "model", "steps", "batch", "seed")}
    named = ("form", "decoder_mask", "alignment", "stage", "steps", "kept")
    of_tokenizer = {name: tokenizer.checkpoint.facts.get(name) for name in named}
    of_tokenizer["registers"] = tokenizer.config.registers
    return {
        "stage": 5,
        **told,
        "assignment": "all",
        "order": grammar.order,
        "classes": classes,
        "label": config["label"] if classes else "",
        "prefix": [],
        "tokens_per_clip": float(grammar.longest),
        "tokenizer": of_tokenizer,
        **{key: config[key] for key in ("frames", "kept") if config[key]},
        "variants": code_cache.VARIANTS_RULE if config["flip"] else "plain clips only",
    }


def text_facts(reader: Reader | None) -> dict[str, str]:
    """Describe how captions are read, for a generator trained on them."""
    return {"text": reader.source, "text_sha256": reader.sha256} if reader else {}
