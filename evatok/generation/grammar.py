"""The grammar of generated sequences: for every temporal block a symbol that names its length, then its codes.

Symbols 0 to codebook_size - 1 are codes; symbol codebook_size + i names the i-th level. Every sequence has exactly K
length symbols, so nothing has to mark its end (facts, section 2).

Legend: B sequences, K temporal blocks, m levels, N symbols of the longest sequence in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from evatok.assignments.candidates import CandidateSet
from evatok.errors import EvatokError
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.evatok import TokenizerConfig
from evatok.tokenizers.layout import Layout


class GrammarError(EvatokError, ValueError):
    """Codes that no sequence can say, or a sequence that says no codes."""


@dataclass(frozen=True)
class Sequences:
    """Sequences packed to the left.

    Attributes:
        symbols: (B, N) int64, 0 in the padding.
        counts: (B,) int64 symbols of each sequence, its length symbols included.
    """

    symbols: torch.Tensor
    counts: torch.Tensor

    @property
    def valid(self) -> torch.Tensor:
        """(B, N) False in the padding."""
        return torch.arange(self.symbols.shape[1], device=self.counts.device) < self.counts[:, None]


@dataclass(frozen=True)
class Progress:
    """Where each of B sequences stands: what it has still to say.

    Attributes:
        blocks_left: (B,) blocks whose length symbol is still to come.
        codes_left: (B,) codes still to come in the current block.
    """

    blocks_left: torch.Tensor
    codes_left: torch.Tensor

    @property
    def done(self) -> torch.Tensor:
        """(B,) True where the sequence is whole."""
        return (self.blocks_left == 0) & (self.codes_left == 0)

    @property
    def wants_length(self) -> torch.Tensor:
        """(B,) True where the next symbol names a length."""
        return (self.blocks_left > 0) & (self.codes_left == 0)

    def coded(self, count: int) -> Progress:
        """After `count` more codes of every sequence; the caller knows that nobody's block is shorter."""
        return Progress(self.blocks_left, self.codes_left - count)

    def keep(self, rows: torch.Tensor) -> Progress:
        """Sequences `rows` (b,) alone, in that order."""
        return Progress(self.blocks_left[rows], self.codes_left[rows])


@dataclass(frozen=True)
class Grammar:
    """What sequences over a codebook and a set of assignments look like."""

    candidates: CandidateSet
    codebook_size: int

    @classmethod
    def of(cls, config: TokenizerConfig) -> Grammar:
        """The grammar of a tokenizer's codes."""
        return cls(config.candidates, config.codebook_size)

    @property
    def levels(self) -> int:
        """m, symbols that name a length."""
        return len(self.candidates.levels)

    @property
    def vocabulary(self) -> int:
        """Symbols in all."""
        return self.codebook_size + self.levels

    @property
    def longest(self) -> int:
        """Symbols of the longest sequence."""
        return self.candidates.blocks * (1 + self.candidates.levels[-1])

    def length_symbols(self, lengths: torch.Tensor) -> torch.Tensor:
        """Symbols (...) that name token counts (...).

        Raises:
            GrammarError: a count that is no level.
        """
        levels = _levels(self, lengths.device)
        digits = torch.searchsorted(levels, lengths.contiguous()).clamp_max(self.levels - 1)
        strange = levels[digits] != lengths
        if strange.any():
            raise GrammarError(
                f"{int(lengths[strange][0])} tokens is no level: the levels are {self.candidates.levels}"
            )
        return self.codebook_size + digits

    def build(self, codes: Codes) -> Sequences:
        """Sequences of codes (B, n) under assignments (B, K).

        Raises:
            GrammarError: codes outside the codebook, a length that is no level, or another number of blocks or codes
                than the assignments ask for.
        """
        blocks = self.candidates.blocks
        if codes.lengths.ndim != 2 or codes.lengths.shape[1] != blocks:
            raise GrammarError(f"assignments must be (B, {blocks}), got {tuple(codes.lengths.shape)}")
        heads = self.length_symbols(codes.lengths)
        wanted = (len(codes.lengths), int(codes.lengths.sum(1).max()))
        if tuple(codes.codes.shape) != wanted:
            raise GrammarError(f"{tuple(codes.codes.shape)} codes, the assignments ask for {wanted}")
        layout = Layout.of(codes.lengths + 1)
        # Padding repeats the place of the last code; it is blanked at the end.
        source = (torch.arange(layout.block.shape[1], device=heads.device) - layout.block - 1).clamp(0, wanted[1] - 1)
        said = codes.codes.gather(1, source)
        _refuse_outside(said, (layout.slot > 0) & layout.valid, self.codebook_size)
        symbols = torch.where(layout.slot == 0, heads.gather(1, layout.block), said)
        return Sequences(symbols.masked_fill(~layout.valid, 0), codes.lengths.sum(1) + blocks)

    def parse(self, sequences: Sequences) -> Codes:
        """Codes and assignments of whole sequences.

        Raises:
            GrammarError: a sequence cut short, a code where a length belongs or the reverse, a symbol that does not
                exist, or symbols behind the end.
        """
        symbols, counts = sequences.symbols, sequences.counts
        if symbols.ndim != 2 or symbols.shape[:1] != counts.shape or bool((counts > symbols.shape[1]).any()):
            raise GrammarError(f"{tuple(symbols.shape)} symbols cannot hold sequences of {counts.tolist()} symbols")
        lengths = self._read_lengths(symbols, counts)
        layout = Layout.of(lengths + 1)
        symbols = symbols[:, : layout.valid.shape[1]]
        is_code = (layout.slot > 0) & layout.valid
        _refuse_outside(symbols, is_code, self.codebook_size)
        return Codes(packed_left(symbols[is_code], lengths.sum(1)), lengths)

    def _read_lengths(self, symbols: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """(B, K) token counts, found by going from one length symbol to the next."""
        levels = _levels(self, symbols.device)
        at, lengths = torch.zeros_like(counts), []
        for block in range(self.candidates.blocks):
            _refuse_short(at >= counts, counts, f"no length symbol of block {block}")
            digits = symbols.gather(1, at[:, None])[:, 0] - self.codebook_size
            strange = (digits < 0) | (digits >= self.levels)
            if strange.any():
                row = int(strange.nonzero()[0])
                raise GrammarError(
                    f"sequence {row}: symbol {int(digits[row]) + self.codebook_size} at place {int(at[row])} names no "
                    f"length: symbols {self.codebook_size} to {self.vocabulary - 1} do"
                )
            lengths.append(levels[digits])
            at = at + 1 + lengths[-1]
            _refuse_short(at > counts, counts, f"block {block} is not whole")
        if (at < counts).any():
            row = int((at < counts).nonzero()[0])
            raise GrammarError(f"sequence {row} ends after {int(at[row])} symbols, {int(counts[row])} are given")
        return torch.stack(lengths, 1)

    def start(self, batch: int, device: torch.device | str = "cpu") -> Progress:
        """The progress of `batch` empty sequences."""
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        return Progress(zeros + self.candidates.blocks, zeros)

    def legal(self, progress: Progress) -> torch.Tensor:
        """(B, vocabulary) True for what may come next; nothing may where the sequence is done."""
        is_length = torch.arange(self.vocabulary, device=progress.codes_left.device) >= self.codebook_size
        wants_code = progress.codes_left > 0
        return torch.where(is_length, progress.wants_length[:, None], wants_code[:, None])

    def advance(self, progress: Progress, symbols: torch.Tensor) -> Progress:
        """The progress after one more symbol (B,) of every sequence.

        Raises:
            GrammarError: a symbol that is not legal, or one behind the end.
        """
        digits = symbols - self.codebook_size
        wants_length, wants_code = progress.wants_length, progress.codes_left > 0
        is_length, is_code = (digits >= 0) & (digits < self.levels), (digits < 0) & (symbols >= 0)
        illegal = ~(wants_length & is_length | wants_code & is_code)
        if illegal.any():
            raise GrammarError(self._complaint(progress, symbols, int(illegal.nonzero()[0])))
        named = _levels(self, symbols.device)[digits.clamp_min(0)]
        codes_left = torch.where(wants_length, named, progress.codes_left - 1)
        return Progress(progress.blocks_left - wants_length.long(), codes_left)

    def _complaint(self, progress: Progress, symbols: torch.Tensor, row: int) -> str:
        symbol = int(symbols[row])
        if progress.done[row]:
            return f"sequence {row} is whole, and symbol {symbol} comes behind its end"
        if progress.wants_length[row]:
            wanted = f"a length, {self.codebook_size} to {self.vocabulary - 1}"
        else:
            wanted = f"a code, 0 to {self.codebook_size - 1}"
        return f"sequence {row}: symbol {symbol} stands where {wanted}, belongs"


@cache
def _levels(grammar: Grammar, device: torch.device) -> torch.Tensor:
    """(m,) token counts of the levels, made once a device: sampling asks for them at every step."""
    return torch.tensor(grammar.candidates.levels, device=device)


def packed_left(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Values (M,) of B rows one after another, `counts` (B,) of each, as (B, N) with 0 behind each row's own."""
    valid = torch.arange(int(counts.max()), device=values.device) < counts[:, None]
    packed = values.new_zeros(valid.shape)
    packed[valid] = values
    return packed


def _refuse_outside(codes: torch.Tensor, valid: torch.Tensor, codebook_size: int) -> None:
    outside = valid & ((codes < 0) | (codes >= codebook_size))
    if outside.any():
        row, place = outside.nonzero()[0].tolist()
        raise GrammarError(
            f"sequence {row}: {int(codes[row, place])} at place {place} is no code: the codebook has codes 0 to "
            f"{codebook_size - 1}"
        )


def _refuse_short(short: torch.Tensor, counts: torch.Tensor, what: str) -> None:
    if short.any():
        row = int(short.nonzero()[0])
        raise GrammarError(f"sequence {row} is cut short after {int(counts[row])} symbols: {what}")
