"""A trained generator in use: clips of a class, or clips that go on from their first frames.

A generator knows the codes of one tokenizer only, so it is loaded with that tokenizer and refuses any other.

Legend: N clips, B clips of a batch, K temporal blocks, C symbols of a condition. Clips are uint8 (N, T, H, W, 3), or
float (B, 3, T, H, W) in [0, 1] where a network sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from evatok.assignments.candidates import CandidateSet
from evatok.data.clips import to_network
from evatok.errors import EvatokError
from evatok.generation import code_cache
from evatok.generation.code_cache import Coder
from evatok.generation.grammar import Grammar
from evatok.generation.sampling import Sampling, sample
from evatok.generation.transformer import Condition, Generator, GeneratorConfig
from evatok.models.precision import autocast
from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.codes import Codes, expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig

GIVEN = 5
"""Frames that frame prediction is given (the paper's K600 protocol, Sec. 4.4)."""

TASKS = ("class", "frames")


class GenerationError(EvatokError, ValueError):
    """A generator that cannot do what is asked of it."""


@dataclass(frozen=True)
class VideoGenerator:
    """A generator and the tokenizer whose codes it writes.

    Attributes:
        task: "class" (clips of a class) or "frames" (clips that go on from their first frames).
        classes: names, in the order of the model's class numbers; () for frame prediction.
        prefix: tokens of the condition's blocks in frame prediction; () for classes.
    """

    module: Generator
    grammar: Grammar
    tokenizer: AdaptiveTokenizer
    checkpoint: Checkpoint
    tokenizer_checkpoint: Checkpoint
    task: str
    classes: tuple[str, ...]
    prefix: tuple[int, ...]

    @classmethod
    def load(cls, path: Path | str, tokenizer_path: Path | str, device: torch.device | str = "cpu") -> VideoGenerator:
        """Both from their checkpoints, frozen, on a device.

        Raises:
            CheckpointError: a file that is absent, damaged or of another kind.
            GenerationError: another tokenizer than the generator was trained on.
        """
        checkpoint = checkpoints.load(path, "generator")
        tokenizer, its = AdaptiveTokenizer.load(tokenizer_path)
        expected = checkpoint.parents["tokenizer"]
        if its.sha256 != expected:
            raise GenerationError(
                f"{path} was trained on the codes of tokenizer {expected[:12]}, {tokenizer_path} is {its.sha256[:12]}: "
                "give the tokenizer it was trained on, or train a generator on this one"
            )
        module = Generator(GeneratorConfig.from_dict(checkpoint.config))
        checkpoint.fill(module)
        facts = checkpoint.facts
        return cls(
            module.eval().requires_grad_(False).to(device),
            Grammar.of(tokenizer.config),
            tokenizer.to(device),
            checkpoint,
            its,
            facts["task"],
            tuple(facts["classes"]),
            tuple(facts["prefix"]),
        )

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def class_index(self, name: str) -> int:
        """The number of a class. Raises GenerationError, with the known ones, for a class it never saw."""
        return int(class_numbers([name], self.classes)[0])

    def generate(
        self,
        classes: Sequence[int],
        seeds: Sequence[int],
        how: Sampling,
        *,
        batch: int = 64,
        cached: bool = True,
        tick: Callable[[int], Any] | None = None,
        whole: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Codes of one clip a class number and seed; a clip depends on its own class, seed and `how` alone.

        Args:
            batch: clips that grow at once; the others wait for their room.
            cached: False recomputes all keys and values at every step; the same codes, for comparison.
            tick: called with the number of clips that became whole.
            whole: called with the numbers of these clips, counted in `seeds`, and their codes.

        Raises:
            GenerationError: a generator of another task, a class number that there is not, or another number of seeds.
        """
        self._check("class", len(classes), seeds)
        numbers = torch.as_tensor(classes, dtype=torch.long)
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self.classes):
            raise GenerationError(f"class numbers go from 0 to {len(self.classes) - 1}, got {sorted(set(classes))}")

        def condition(rows: slice) -> Condition:
            return Condition(numbers[rows].to(self.device), None)

        return self._sample(condition, seeds, how, batch, cached, tick, whole)

    def predict(
        self,
        clips: np.ndarray,
        seeds: Sequence[int],
        how: Sampling,
        *,
        batch: int = 64,
        cached: bool = True,
        tick: Callable[[int], Any] | None = None,
        whole: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Codes of clips that go on from the first GIVEN frames of `clips` uint8 (N, T, H, W, 3).

        Whole clips: the given frames are generated again, as by the paper and its peers. T is the tokenizer's, and
        no frame behind the given ones is looked at. Arguments and errors as of `generate`.
        """
        self._check("frames", len(clips), seeds)

        def condition(rows: slice) -> Condition:
            codes = condition_codes(self.tokenizer, to_network(clips[rows], self.device), self.prefix)
            return Condition(None, condition_symbols(codes, self.grammar))

        return self._sample(condition, seeds, how, batch, cached, tick, whole)

    @torch.no_grad()
    def clips(self, codes: Codes, batch: int = 32) -> np.ndarray:
        """uint8 clips (N, T, H, W, 3) of codes; clips of like length are decoded together."""
        order = codes.lengths.sum(1).argsort(stable=True)
        parts = [self._decoded(codes, rows) for rows in order.split(batch)]
        return np.concatenate(parts)[order.argsort().cpu().numpy()]

    def _decoded(self, codes: Codes, rows: torch.Tensor) -> np.ndarray:
        lengths = codes.lengths[rows]
        part = Codes(codes.codes[rows, : int(lengths.sum(1).max())].to(self.device), lengths.to(self.device))
        pixels = self.tokenizer.decode(part).float().mul(255).round().to(torch.uint8)
        return rearrange(pixels, "b c t h w -> b t h w c").cpu().numpy()

    def _check(self, task: str, count: int, seeds: Sequence[int]) -> None:
        if self.task != task:
            raise GenerationError(f"this generator was trained for the task {self.task!r}, {task!r} is asked")
        if count != len(seeds) or not count:
            raise GenerationError(f"one seed a clip is needed: {len(seeds)} seeds for {count} clips")

    def _sample(
        self,
        condition: Callable[[slice], Condition],
        seeds: Sequence[int],
        how: Sampling,
        batch: int,
        cached: bool,
        tick: Callable[[int], Any] | None,
        whole: Callable[[list[int], Codes], Any] | None,
    ) -> Codes:
        asked = [condition(slice(start, start + batch)) for start in range(0, len(seeds), batch)]
        prefix = torch.tensor(self.prefix) if self.prefix else None
        more: dict[str, Any] = {"prefix_lengths": prefix, "cached": cached, "tick": tick, "whole": whole}
        return sample(self.module, self.grammar, Condition.joined(asked), seeds, how, rows=batch, **more)


def class_numbers(names: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """(N,) numbers of class names in the list of classes. Raises GenerationError for a name it does not hold."""
    number = {name: i for i, name in enumerate(classes)}
    names = [str(name) for name in names]
    unknown = sorted(set(names) - number.keys())
    if unknown:
        raise GenerationError(f"unknown class {unknown[0]!r}; known ones: {', '.join(classes) or 'none'}")
    return np.array([number[name] for name in names], dtype=np.int64)


def condition_blocks(shape: TokenizerConfig) -> int:
    """Temporal blocks that hold the given frames. Raises GenerationError where these leave none to predict."""
    blocks = -(-GIVEN // shape.patch[0])
    if blocks >= shape.candidates.blocks:
        raise GenerationError(f"frame prediction gives {GIVEN} frames: clips of {shape.frames} leave none to predict")
    return blocks


def condition_prefix(shape: TokenizerConfig, row: Sequence[int] | None, beside: int | None = None) -> tuple[int, ...]:
    """Tokens of the condition's blocks: those of a fixed row, or the paper's (512, 128) scaled to other levels.

    The paper's are the longest and the middle one of its five levels, and at once the level above and the one below the
    256 tokens a block that its rivals of fixed length spend. Other levels cannot always have both: they are scaled with
    the levels, or, where `beside` names the tokens a block of a fixed row, with that row.

    Args:
        row: of a tokenizer of fixed length; None under a router.
        beside: a level.
    """
    blocks, levels = condition_blocks(shape), shape.levels
    if row is not None:
        return tuple(row[:blocks])
    first, further = len(levels) - 1, len(levels) // 2
    if beside is not None:
        place = levels.index(beside)
        first, further = min(place + 1, first), max(place - 1, 0)
    return (levels[first], *(levels[further],) * (blocks - 1))


def condition_codes(tokenizer: AdaptiveTokenizer, clips: torch.Tensor, prefix: tuple[int, ...]) -> Codes:
    """Codes (B, sum of prefix) of the first GIVEN frames, the last of them repeated to fill whole blocks.

    Clips (B, 3, T, H, W); no later frame of them is looked at. What fills the blocks behind the prefix is the same
    repeated frame, and as the tokenizer is block-causal it leaves no trace in the codes returned.

    Raises:
        GenerationError: a prefix of no level, or one whose blocks do not just hold the given frames.
    """
    shape = tokenizer.config
    if len(prefix) != condition_blocks(shape) or not set(prefix) <= set(shape.levels):
        raise GenerationError(
            f"{GIVEN} given frames fill {condition_blocks(shape)} blocks of levels {shape.levels}; the prefix {prefix} "
            "does not fit"
        )
    frames = [min(t, GIVEN - 1) for t in range(shape.frames)]
    row = (*prefix, *(shape.levels[0],) * (shape.candidates.blocks - len(prefix)))
    whole = tokenizer.encode(clips[:, :, frames], expand_assignment(row, len(clips)).to(clips.device))
    return Codes(whole.codes[:, : sum(prefix)], whole.lengths[:, : len(prefix)])


def condition_coder(tokenizer: AdaptiveTokenizer, sha256: str, prefix: tuple[int, ...], *, bf16: bool = False) -> Coder:
    """Codes of what is given of a clip, for `coding.code_set`."""

    def encode(clips: torch.Tensor) -> Codes:
        with autocast(clips.device, bf16):
            return condition_codes(tokenizer, clips, prefix)

    rule = {"given": GIVEN, "filled": "the last given frame", "row": list(prefix)}
    return Coder(encode, code_cache.made_by(sha256, rule, bf16))


def condition_symbols(codes: Codes, grammar: Grammar) -> torch.Tensor:
    """(B, C) symbols, those of lengths among them, of the codes of a condition: all of one prefix, so none is padding.

    Args:
        grammar: of the tokenizer's whole clips.
    """
    short = Grammar(CandidateSet(grammar.candidates.levels, codes.lengths.shape[1]), grammar.codebook_size)
    return short.build(codes).symbols


def condition_length(prefix: Sequence[int]) -> int:
    """C, the symbols of a condition: its codes and one length per block."""
    return sum(prefix) + len(prefix)
