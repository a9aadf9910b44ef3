"""Generate clips with a trained generator: of a class, or continuing their first frames.

A generator is trained on the codes of one tokenizer, so it is loaded with that tokenizer and rejects any other.

Legend: N clips, B clips of a batch, K temporal blocks, C symbols of a condition. Clips are uint8 (N, T, H, W, 3), or
float (B, 3, T, H, W) in [0, 1] as network inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from evatok.data.clips import from_network, to_network
from evatok.generation import taught
from evatok.generation.captions import Reader
from evatok.generation.conditions import GenerationError, condition_codes, condition_symbols
from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import Sampling, sample
from evatok.generation.transformer import Condition, Generator, GeneratorConfig
from evatok.models.trained import Trained
from evatok.storage.checkpoints import Checkpoint
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.videoflextok import KIND as VIDEOFLEXTOK
from evatok.tokenizers.videoflextok import VideoFlexTok
from evatok.tokenizers.videoflextok.long import decode_long, parted

TOKENIZERS: dict[str, type[AdaptiveTokenizer] | type[VideoFlexTok]] = {
    "tokenizer": AdaptiveTokenizer,
    VIDEOFLEXTOK: VideoFlexTok,
}
"""Tokenizers that a generator may be trained on, by the kind of their checkpoints."""


@dataclass(frozen=True)
class Flow:
    """How a flow decoder draws clips: Euler steps, normalised guidance (1: none), and the seed of its noise."""

    steps: int = 20
    guidance: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class VideoGenerator(Trained):
    """A generator and the tokenizer that decodes what it generates.

    Attributes:
        task: "class" (class-to-video), "frames" (frame prediction) or "text" (text-to-video).
        classes: class names, in the order of the model's class indices; () for frame prediction.
        prefix: tokens of each of the condition's blocks in frame prediction; () for classes.
        flow: sampling settings of a flow decoder.
        reader: of captions; None for other tasks.
    """

    KIND = "generator"

    module: Generator
    grammar: Grammar | OrderedGrammar
    tokenizer: AdaptiveTokenizer | VideoFlexTok
    checkpoint: Checkpoint
    task: str
    classes: tuple[str, ...]
    prefix: tuple[int, ...]
    flow: Flow = Flow()
    reader: Reader | None = None

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu", **parts: Any) -> Self:
        video = super().load(path, device, **parts)
        video.tokenizer.to(device)
        return video

    @classmethod
    def of_checkpoint(
        cls,
        checkpoint: Checkpoint,
        path: Path,
        *,
        tokenizer: Path | str | None = None,
        latents: Path | str | None = None,
        kept: int = 0,
        text: str = "",
        **parts: Any,
    ) -> Self:
        """See `Trained.of_checkpoint`.

        Args:
            tokenizer: path of the tokenizer it was trained on; by default it is sought in the generator's own folder.
            latents: folder of VidTok's weights, for a tokenizer on its latents.
            kept: tokens per latent frame at which VideoFlexTok's sequences stop; 0: all.
            text: language model of a caption-conditioned generator, if its checkpoint names a folder or a hub name.

        Raises:
            CheckpointError: a tokenizer that is missing, damaged or of another kind.
            GenerationError: the generator was trained on another tokenizer or with captions read differently, or `kept`
                is given for one with length symbols.
            EncoderError: a language model that cannot be read.
            GrammarError: an order or `kept` that the tokenizer does not support.
        """
        expected = str(checkpoint.parents["tokenizer"])
        kind = VIDEOFLEXTOK if "order" in checkpoint.facts else "tokenizer"
        tokenizer = tokenizer or taught.tokenizer_beside(path, expected, kind)
        options: dict[str, Any] = {"codec": latents} if latents else {}
        decoder = TOKENIZERS[kind].load(tokenizer, **options)
        if (given := decoder.checkpoint.sha256) != expected:
            raise GenerationError(
                f"{path} was trained on the codes of tokenizer {expected[:12]}, {tokenizer} is {given[:12]}: pass "
                "the tokenizer it was trained on, or train a generator on this one"
            )
        module = Generator(GeneratorConfig.from_dict(checkpoint.config))
        task, classes, prefix = taught.told_by(checkpoint)
        grammar = taught.grammar_of(decoder, checkpoint, kept)
        reader = taught.reader_of(checkpoint, text) if task == "text" else None
        return cls(module, grammar, decoder, checkpoint, task, classes, prefix, reader=reader, **parts)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def in_bf16(self) -> Self:
        """Return a copy with the generator's weights in bfloat16: autocast would cast them at every step."""
        return replace(self, module=copy.deepcopy(self.module).bfloat16())

    @property
    def frames(self) -> int:
        """Frames of a generated clip."""
        facts = self.checkpoint.facts
        return int(facts.get("frames", 0)) or self.tokenizer.config.frames

    def class_index(self, name: str) -> int:
        """Return the index of a class. Raises GenerationError, listing the known ones, for an unknown class."""
        return int(taught.class_numbers([name], self.classes)[0])

    def generate(
        self,
        classes: Sequence[int],
        seeds: Sequence[int],
        options: Sampling,
        *,
        batch: int = 64,
        cached: bool = True,
        tick: Callable[[int], Any] | None = None,
        finished: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Generate the codes of one clip per class index and seed; each depends only on these two and `options`.

        Args:
            batch: clips that run at once; the others wait to be admitted.
            cached: use a KV cache; without it, all keys and values are recomputed at every step, for comparison.
            tick: called with the number of clips that have just finished.
            finished: called with their indices in `seeds` and their codes.

        Raises:
            GenerationError: a generator of another task, a class index out of range, or not one seed per clip.
        """
        self._check("class", len(classes), seeds)
        indices = torch.as_tensor(classes, dtype=torch.long)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self.classes):
            raise GenerationError(
                f"class index out of range: must be 0 to {len(self.classes) - 1}, got {sorted(set(classes))}"
            )

        def condition(rows: slice) -> Condition:
            return Condition(indices[rows].to(self.device), None)

        return self._sample(condition, seeds, options, batch, cached, tick, finished)

    def predict(
        self,
        clips: np.ndarray,
        seeds: Sequence[int],
        options: Sampling,
        *,
        batch: int = 64,
        cached: bool = True,
        tick: Callable[[int], Any] | None = None,
        finished: Callable[[list[int], Codes], Any] | None = None,
    ) -> Codes:
        """Generate the codes of clips that continue the first GIVEN frames of `clips` uint8 (N, T, H, W, 3).

        The codes cover complete clips: the given frames are generated again, as in the paper and its peers. T is the
        tokenizer's; frames after the given ones are not used. See `generate` for arguments and errors.
        """
        self._check("frames", len(clips), seeds)

        def condition(rows: slice) -> Condition:
            assert isinstance(self.tokenizer, AdaptiveTokenizer), "frames are continued with length symbols"
            assert isinstance(self.grammar, Grammar)
            codes = condition_codes(self.tokenizer, to_network(clips[rows], self.device), self.prefix)
            return Condition(None, condition_symbols(codes, self.grammar))

        return self._sample(condition, seeds, options, batch, cached, tick, finished)

    def illustrate(self, captions: Sequence[str], seeds: Sequence[int], options: Sampling, **batching: Any) -> Codes:
        """Generate the codes of one clip per caption and seed; see `generate` for the other arguments and errors.

        Raises:
            CaptionError, EncoderError: a caption that cannot be read.
        """
        self._check("text", len(captions), seeds)
        assert self.reader is not None
        text = self.reader.read(captions)

        def condition(rows: slice) -> Condition:
            return Condition(text=text[rows].to(self.device))

        usual: dict[str, Any] = {"batch": 64, "cached": True, "tick": None, "finished": None}
        return self._sample(condition, seeds, options, **{**usual, **batching})

    @torch.no_grad()
    def clips(self, codes: Codes, batch: int = 32) -> np.ndarray:
        """Decode codes to uint8 clips (N, T, H, W, 3); clips of similar length are decoded together."""
        order = codes.lengths.sum(1).argsort(stable=True)
        parts = [self._decoded(codes, rows) for rows in order.split(batch)]
        return np.concatenate(parts)[order.argsort().cpu().numpy()]

    def _decoded(self, codes: Codes, rows: torch.Tensor) -> np.ndarray:
        lengths = codes.lengths[rows]
        part = Codes(codes.codes[rows, : int(lengths.sum(1).max())].to(self.device), lengths.to(self.device))
        if isinstance(self.tokenizer, AdaptiveTokenizer):
            return from_network(self.tokenizer.decode(part))
        flow, numbers = self.flow, rows.cpu().numpy()
        how: dict[str, Any] = {"steps": flow.steps, "guidance": flow.guidance, "seed": flow.seed, "indices": numbers}
        if lengths.shape[1] > self.tokenizer.config.blocks:
            return from_network(decode_long(self.tokenizer, parted(self.tokenizer.config, part), **how))
        return from_network(self.tokenizer.decode(part, **how))

    def _check(self, task: str, count: int, seeds: Sequence[int]) -> None:
        if self.task != task:
            raise GenerationError(f"this generator was trained for the task {self.task!r}, not for {task!r}")
        if count != len(seeds) or not count:
            raise GenerationError(f"one seed per clip is needed: got {len(seeds)} seeds for {count} clips")

    def _sample(
        self,
        condition: Callable[[slice], Condition],
        seeds: Sequence[int],
        options: Sampling,
        batch: int,
        cached: bool,
        tick: Callable[[int], Any] | None,
        finished: Callable[[list[int], Codes], Any] | None,
    ) -> Codes:
        conditions = [condition(slice(start, start + batch)) for start in range(0, len(seeds), batch)]
        prefix = torch.tensor(self.prefix) if self.prefix else None
        return sample(
            self.module,
            self.grammar,
            Condition.joined(conditions),
            seeds,
            options,
            batch=batch,
            prefix_lengths=prefix,
            cached=cached,
            tick=tick,
            finished=finished,
        )
