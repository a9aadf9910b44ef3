"""What a generator checkpoint's header states: its task, sequences, captions and tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from evatok.generation.captions import WORDS, Reader, check_same
from evatok.generation.conditions import GenerationError
from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.models.text_encoders import MINILM
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.videoflextok import VideoFlexTok

TASKS = ("class", "frames", "text")


def grammar_of(
    tokenizer: AdaptiveTokenizer | VideoFlexTok, checkpoint: Checkpoint, kept: int
) -> Grammar | OrderedGrammar:
    """Return the sequences a generator was trained on; VideoFlexTok's are complete after `kept` tokens per frame."""
    facts = checkpoint.facts
    if isinstance(tokenizer, VideoFlexTok):
        frames, most = checkpoints.listed([facts.get("frames", 0), facts.get("kept", 0)], int)
        return OrderedGrammar.of(tokenizer.config, str(facts["order"]), kept, frames=frames, most=most)
    if kept:
        raise GenerationError(f"kept={kept}: sequences with length symbols end by themselves, only VideoFlexTok's stop")
    return Grammar.of(tokenizer.config)


def reader_of(checkpoint: Checkpoint, given: str = "") -> Reader:
    """Load the caption reader used in training. A folder or hub name in a header is never followed.

    Raises:
        GenerationError: a language model that has to be given, or a different one from training.
        EncoderError: a language model that cannot be read.
    """
    source = str(checkpoint.facts["text"])
    if source not in (WORDS, MINILM) and not given:
        raise GenerationError(f"captions were read by {source!r}: pass that language model, text=PATH")
    reader = Reader.of(given or source)
    check_same(reader, str(checkpoint.facts["text_sha256"]))
    return reader


def tokenizer_beside(path: Path, sha256: str, kind: str) -> Path:
    """Find the tokenizer of that hash in a generator's folder. Raises GenerationError if it is not there."""
    for candidate, header in checkpoints.headers(path.parent, kind).items():
        if header["sha256"] == sha256:
            return candidate
    raise GenerationError(f"{path}: its tokenizer {sha256[:12]} is not in {path.parent}: pass tokenizer=PATH")


def class_numbers(names: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """(N,) indices of class names in `classes`. Raises GenerationError for an unknown name."""
    index_of = {name: index for index, name in enumerate(classes)}
    names = [str(name) for name in names]
    unknown = sorted(set(names) - index_of.keys())
    if unknown:
        raise GenerationError(f"unknown class {unknown[0]!r}; known ones: {', '.join(classes) or 'none'}")
    return np.array([index_of[name] for name in names], dtype=np.int64)


def told_by(checkpoint: Checkpoint) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Return the task, classes and prefix a generator was trained with. Raises built-in errors for invalid ones."""
    facts = checkpoint.facts
    task, classes, prefix = facts["task"], checkpoints.listed(facts["classes"], str), facts["prefix"]
    words = {"assignment": facts.get("assignment", ""), "label": facts.get("label", "")}
    if task not in TASKS or not all(isinstance(word, str) for word in words.values()):
        raise ValueError(f"task {task!r:.60}, {words!r:.120}")
    checkpoints.listed(facts.get("row", []), int)
    return task, classes, checkpoints.listed(prefix, int)
