"""What a generator is trained on: clips coded by a tokenizer, their classes or given frames, and the grammar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evatok.assignments.rules import Fixed, Rule
from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments.setting import streaming_of, uniform_tokens
from evatok.experiments.tracking import ConfigError
from evatok.generation import code_cache, conditions, taught
from evatok.generation.captions import Reader
from evatok.generation.code_cache import CodedSet, Coder
from evatok.generation.grammar import Grammar, Sequences
from evatok.generation.order import OrderedGrammar
from evatok.generation.transformer import Condition, GeneratorConfig
from evatok.routing.rules import load_routed
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.videoflextok import VideoFlexTokConfig


@dataclass(frozen=True)
class Part:
    """One split as the generator sees it.

    Attributes:
        coded: its clips' codes.
        classes: (N,) class indices; None in frame prediction.
        given: codes of the given frames in frame prediction; None for classes.
        text: captions as the generator reads them, (N, W) or (N, W, E); None for other tasks.
    """

    coded: CodedSet
    classes: np.ndarray | None
    given: CodedSet | None
    text: torch.Tensor | None = None

    def batch(
        self, rows: np.ndarray, variants: np.ndarray | int, grammar: Grammar | OrderedGrammar
    ) -> tuple[Sequences, Condition]:
        """Build sequences and conditions of clips `rows` (B,) in their variants (B,), on the CPU."""
        sequences = grammar.build(self.coded.batch(rows, variants))
        classes = None if self.classes is None else torch.from_numpy(self.classes[rows])
        given = None
        if self.given is not None:
            assert isinstance(grammar, Grammar), "frames are given in sequences with length symbols"
            given = conditions.condition_symbols(self.given.batch(rows, variants), grammar)
        text = None if self.text is None else self.text[torch.as_tensor(rows)]
        return sequences, Condition(classes, given, text)


@dataclass(frozen=True)
class Lesson:
    """Everything a generator is trained on, already coded, and what its checkpoint records about it."""

    train: Part
    validation: Part
    grammar: Grammar | OrderedGrammar
    shape: GeneratorConfig
    parents: dict[str, str]
    facts: dict[str, Any]
    protocol: dict[str, Any]

    @property
    def identity(self) -> str:
        return " ".join(self.parents.values())

    @classmethod
    def read(cls, config: dict[str, Any]) -> Lesson:
        """Load tokenizer, clips, classes and codes, computing the codes that are not cached.

        Raises:
            CheckpointError, RoutingError: a tokenizer or router that is missing, damaged or does not fit.
            ConfigError: keys that only apply to VideoFlexTok's sequences.
            CodingError: clips without the label column.
            GenerationError: a validation clip whose class no training clip has.
        """
        if config["task"] == "text":
            raise ConfigError("config key task: captions are learned on VideoFlexTok's codes; give such a tokenizer")
        for key in ("kept", "frames"):
            if config[key]:
                raise ConfigError(f"config key {key}: only sequences of VideoFlexTok's codes are cut or long, set 0")
        tokenizer = AdaptiveTokenizer.load(config["tokenizer"], config["device"])
        sha256, row = tokenizer.checkpoint.sha256, uniform_row(config, tokenizer)
        prefix = prefix_of(config, tokenizer, row) if config["task"] == "frames" else ()
        fixed = row if config["assignment"] == "uniform" else None
        rule = rule_of(config, tokenizer, fixed, prefix)
        clips = {name: clips_of(config, tokenizer.config, name) for name in ("train", "validation")}
        classes, numbers = classes_of(config, clips)
        coder = code_cache.clip_coder(tokenizer, sha256, rule, bf16=config["code_bf16"])
        giver = conditions.condition_coder(tokenizer, sha256, prefix, bf16=config["code_bf16"])
        parts = {
            name: Part(
                coded(coder, its, config, name),
                numbers.get(name),
                coded(giver, its, config, f"{name}, given frames") if prefix else None,
            )
            for name, its in clips.items()
        }
        grammar = Grammar.of(tokenizer.config)
        return cls(
            parts["train"],
            parts["validation"],
            grammar,
            shape_of(config, grammar, len(classes), conditions.condition_length(prefix)),
            {"tokenizer": sha256, "clips": clips["train"].sha256, **rule.parents},
            facts_of(config, classes, fixed, prefix, parts["train"].coded.mean_tokens),
            protocol_of(config, clips),
        )


def uniform_row(config: dict[str, Any], tokenizer: AdaptiveTokenizer) -> tuple[int, ...]:
    """Return the tokens per block of the fixed assignment: used by assignment=uniform, and to scale given=row.

    Raises:
        ConfigError: tokens that are not one of the levels.
    """
    shape = tokenizer.config
    with checkpoints.built_from(config["tokenizer"]):
        own = checkpoints.listed(tokenizer.checkpoint.facts.get("row", [shape.candidates.baseline]), int)[0]
    return (uniform_tokens(config, shape, own),) * shape.candidates.blocks


def prefix_of(config: dict[str, Any], tokenizer: AdaptiveTokenizer, row: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens of the given frames' blocks."""
    if config["assignment"] == "uniform":
        return conditions.condition_prefix(tokenizer.config, row)
    return conditions.condition_prefix(tokenizer.config, None, row[0] if config["given"] == "row" else None)


def rule_of(
    config: dict[str, Any], tokenizer: AdaptiveTokenizer, row: tuple[int, ...] | None, prefix: tuple[int, ...]
) -> Rule:
    """Return the configured assignment rule.

    Raises:
        ConfigError: a router other than the one the tokenizer was trained with.
    """
    if row is not None:
        return Fixed(tokenizer.config.candidates, row[:1])  # every block has the same tokens
    rule = load_routed(config["router"], tokenizer.config, config["device"], prefix)
    if (taught := tokenizer.checkpoint.parents.get("router", rule.parents["router"])) != rule.parents["router"]:
        raise ConfigError(
            f"config key router: {config['router']} is {rule.parents['router'][:12]}, but the tokenizer was "
            "trained under "
            f"the assignments of {taught[:12]}; give that one, or assignment=uniform"
        )
    return rule


def clips_of(
    config: dict[str, Any], shape: TokenizerConfig | VideoFlexTokConfig, split: str, frames: int = 0
) -> ClipSet:
    """Load a split's clips in the tokenizer's shape; `frames` per long clip, 0: the tokenizer's."""
    count = config[f"{split}_clips"]
    how = streaming_of(config, config["data"])
    return clip_set(
        config["data"], split, count, size=shape.size, frames=frames or shape.frames, fps=config["fps"], streaming=how
    )


def classes_of(config: dict[str, Any], clips: dict[str, ClipSet]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the training clips' sorted classes and each split's (N,) class indices; nothing in frame prediction."""
    if config["task"] == "frames":
        return [], {}
    labels = {name: code_cache.labels_of(its, config["label"]).tolist() for name, its in clips.items()}
    classes = sorted(set(labels["train"]))
    return classes, {name: taught.class_numbers(words, classes) for name, words in labels.items()}


def shape_of(
    config: dict[str, Any],
    grammar: Grammar | OrderedGrammar,
    classes: int,
    condition: int,
    reader: Reader | None = None,
) -> GeneratorConfig:
    """Return the configured network for a grammar; `reader` reads captions, if any."""
    text = {"text": config["text_slots"], **reader.shape} if reader else {}
    return GeneratorConfig.of(
        grammar,
        config["model"],
        classes=classes,
        condition=condition,
        positions=config["positions"],
        dropout=config["dropout"],
        class_dropout=config["class_dropout"],
        **text,
    )


def facts_of(
    config: dict[str, Any],
    classes: list[str],
    row: tuple[int, ...] | None,
    prefix: tuple[int, ...],
    tokens: float,
) -> dict[str, Any]:
    """Describe the training for the checkpoint's header; sampling needs task, classes and prefix."""
    told = {name: config[name] for name in ("task", "assignment", "size", "model", "steps", "batch", "seed")}
    return {
        "stage": 5,
        **told,
        "classes": classes,
        "label": config["label"] if classes else "",
        **({"row": list(row)} if row else {}),
        "prefix": list(prefix),
        **({"given": config["given"]} if prefix and not row else {}),
        "tokens_per_clip": tokens,
        "variants": code_cache.VARIANTS_RULE if config["flip"] else "plain clips only",
    }


def protocol_of(config: dict[str, Any], clips: dict[str, ClipSet]) -> dict[str, Any]:
    """Return what the generator was trained on and what the record's validation metrics were measured on."""
    return {
        "data": config["data"],
        "split": "validation",
        "clips": len(clips["validation"]),
        "sha256": clips["validation"].sha256,
        "train": clips["train"].manifest,
    }


def coded(coder: Coder, clips: ClipSet, config: dict[str, Any], name: str) -> CodedSet:
    """Code the set; training clips also mirrored, if `flip`."""
    mirrored = config["flip"] and name.startswith("train")
    with tqdm(total=len(clips), desc=f"codes of {name}", disable=None) as bar:
        return code_cache.code_set(coder, clips.clips, mirrored=mirrored, device=config["device"], tick=bar.update)
