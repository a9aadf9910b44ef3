"""Orders of VideoFlexTok's tokens in a sequence without length symbols: coarse to fine over time, or frame by frame.

time-first: the first token of every latent frame, then the second of every one (Sec. 4.1): a sequence cut after T * k
tokens holds k tokens of each frame, so that one generator of all K tokens can stop at any k. depth-first: all tokens of
the first frame, then all of the second (Table 4); with a 3D grid, raster order. flat: the only order of flat tokens; it
can also be cut at any length.

Legend: B sequences, T latent frames, K tokens per frame at most, k of them kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from evatok.generation.grammar import GrammarError, Progress, Sequences
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok import VideoFlexTokConfig
from evatok.tokenizers.videoflextok.long import latent_frames_of

ORDERS = ("time-first", "depth-first", "flat")


@dataclass(frozen=True)
class OrderedGrammar:
    """Sequences of T * k codes in one order; replaces `Grammar` where every clip has the same length.

    Attributes:
        order: one of ORDERS.
        blocks: T.
        registers: K.
        kept: k, tokens per latent frame at which a sequence is complete.
    """

    order: str
    blocks: int
    registers: int
    codebook_size: int
    kept: int
    levels = 0
    """Length symbols in the vocabulary."""
    headers = 0
    """Length symbols in a sequence."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise GrammarError(f"order {self.order!r} is not one of {', '.join(ORDERS)}")
        if not 1 <= self.kept <= self.registers:
            raise GrammarError(f"kept must be between 1 and {self.registers} tokens per latent frame, got {self.kept}")
        if self.order == "depth-first" and self.kept < self.registers:
            raise GrammarError(
                f"depth-first sequences are complete after all {self.registers} tokens per latent frame, not after "
                f"{self.kept}: only time-first and flat ones can be cut"
            )

    @classmethod
    def of(
        cls, config: VideoFlexTokConfig, order: str, kept: int = 0, *, frames: int = 0, most: int = 0
    ) -> OrderedGrammar:
        """Return the grammar of a tokenizer's codes.

        Args:
            kept: tokens per latent frame at which a sequence is complete; 0: all of them.
            frames: per long clip, in chunks that share a latent frame; 0: the tokenizer's own.
            most: tokens per latent frame in the longest sequence; 0: all that the tokenizer has.

        Raises:
            GrammarError: an order that the tokenizer's form does not support, or more tokens than it has.
            FlexTokError: frames that chunks do not divide.
        """
        fitting = {"flat": ("flat",), "grid": ("depth-first",)}.get(config.form, ("time-first", "depth-first"))
        if order not in fitting:
            raise GrammarError(f"tokens of the form {config.form!r} have the order {' or '.join(fitting)}, not {order}")
        if most > config.registers:
            raise GrammarError(f"the tokenizer has {config.registers} tokens per latent frame, not {most}")
        most, blocks = most or config.registers, latent_frames_of(config, frames) if frames else config.blocks
        return cls(order, blocks, most, config.codebook_size, kept or most)

    def stopping_at(self, kept: int) -> OrderedGrammar:
        """Return this grammar with sequences complete after `kept` tokens per latent frame. Raises as `of`."""
        return replace(self, kept=kept)

    @property
    def vocabulary(self) -> int:
        return self.codebook_size

    @property
    def longest(self) -> int:
        """Number of symbols in the longest sequence a generator of these codes takes, whatever `kept` is."""
        return self.blocks * self.registers

    def build(self, codes: Codes) -> Sequences:
        """Build the sequences of codes (B, T * k), the same number in every frame.

        Raises:
            GrammarError: other lengths, or codes outside the codebook.
        """
        expected = (len(codes.codes), self.blocks)
        if tuple(codes.lengths.shape) != expected or bool((codes.lengths != self.kept).any()):
            raise GrammarError(
                f"{self.order} sequences take {self.kept} tokens in each of {self.blocks} latent frames, got lengths "
                f"{codes.lengths.tolist()[:1]} of shape {tuple(codes.lengths.shape)}"
            )
        if bool(((codes.codes < 0) | (codes.codes >= self.codebook_size)).any()):
            raise GrammarError(f"codes outside the codebook (0 to {self.codebook_size - 1})")
        symbols = codes.codes
        if self.order == "time-first":
            symbols = symbols.unflatten(1, (self.blocks, self.kept)).transpose(1, 2).flatten(1)
        return Sequences(symbols, torch.full_like(codes.lengths[:, 0], symbols.shape[1]))

    def parse(self, sequences: Sequences) -> Codes:
        """Parse complete sequences into codes (B, T * k) and lengths (B, T).

        Raises:
            GrammarError: sequences of another number of symbols.
        """
        length = self.blocks * self.kept
        if bool((sequences.counts != length).any()):
            raise GrammarError(
                f"sequences of {sequences.counts.unique().tolist()} symbols, complete ones have {length}"
            )
        codes = sequences.symbols[:, :length]
        if self.order == "time-first":
            codes = codes.unflatten(1, (self.kept, self.blocks)).transpose(1, 2).flatten(1)
        return Codes(codes, torch.full_like(sequences.counts, self.kept)[:, None].expand(-1, self.blocks).clone())

    def start(self, batch: int, device: torch.device | str = "cpu") -> Progress:
        """Progress of `batch` empty sequences: one block of T * k codes, whose length is known."""
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        return Progress(zeros, zeros + self.blocks * self.kept)

    def advance(self, progress: Progress, symbols: torch.Tensor) -> Progress:
        """Advance every sequence by one code (B,). Raises GrammarError for another symbol, or one after the end."""
        illegal = (symbols < 0) | (symbols >= self.codebook_size) | progress.done
        if bool(illegal.any()):
            row = int(illegal.nonzero()[0])
            raise GrammarError(f"sequence {row}: symbol {int(symbols[row])} is no code, or comes after the end")
        return progress.coded(1)

    def length_symbols(self, lengths: torch.Tensor) -> torch.Tensor:
        """Raise GrammarError: there are no length symbols."""
        raise GrammarError(f"{self.order} sequences have no length symbols, so none can be given")
