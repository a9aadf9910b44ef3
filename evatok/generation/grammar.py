"""The grammar of generated sequences: for every temporal block, a symbol for its length, then its codes.

Symbols 0 to codebook_size - 1 are codes; symbol codebook_size + i stands for the i-th level. Every sequence has exactly
K length symbols, so no end symbol is needed.

Legend: B sequences, K temporal blocks, m levels, N symbols of the longest sequence in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from evatok.assignments.candidates import CandidateSet
from evatok.errors import EvatokError
from evatok.storage.transfer import moved
from evatok.tokenizers.codes import Codes, left_mask
from evatok.tokenizers.evatok import TokenizerConfig
from evatok.tokenizers.layout import Layout


class GrammarError(EvatokError, ValueError):
    """Codes that no sequence can represent, or a sequence that violates the grammar."""


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
        return left_mask(self.counts, self.symbols.shape[1])

    def to(self, device: torch.device | str) -> Sequences:
        return Sequences(moved(self.symbols, device), moved(self.counts, device))


@dataclass(frozen=True)
class Progress:
    """What remains to be decoded of each of B sequences.

    Attributes:
        blocks_left: (B,) blocks without a length symbol yet.
        codes_left: (B,) codes missing from the current block.
    """

    blocks_left: torch.Tensor
    codes_left: torch.Tensor

    @property
    def done(self) -> torch.Tensor:
        """(B,) True where the sequence is complete."""
        return (self.blocks_left == 0) & (self.codes_left == 0)

    @property
    def wants_length(self) -> torch.Tensor:
        """(B,) True where the next symbol is a length."""
        return (self.blocks_left > 0) & (self.codes_left == 0)

    def coded(self, count: int) -> Progress:
        """Advance every sequence by `count` codes; the caller ensures that no block ends before that."""
        return Progress(self.blocks_left, self.codes_left - count)

    def keep(self, rows: torch.Tensor) -> Progress:
        """Keep only sequences `rows` (b,), in that order."""
        return Progress(self.blocks_left[rows], self.codes_left[rows])

    @classmethod
    def joined(cls, first: Progress, second: Progress) -> Progress:
        """Concatenate the sequences of both."""
        blocks_left = torch.cat((first.blocks_left, second.blocks_left))
        return cls(blocks_left, torch.cat((first.codes_left, second.codes_left)))


@dataclass(frozen=True)
class Grammar:
    """The legal sequences over a codebook and a set of candidate assignments."""

    candidates: CandidateSet
    codebook_size: int

    @classmethod
    def of(cls, config: TokenizerConfig) -> Grammar:
        """The grammar of a tokenizer's codes."""
        return cls(config.candidates, config.codebook_size)

    @property
    def levels(self) -> int:
        """m, the number of length symbols."""
        return len(self.candidates.levels)

    @property
    def headers(self) -> int:
        """The number of length symbols in a sequence, one per block."""
        return self.candidates.blocks

    @property
    def vocabulary(self) -> int:
        """The number of symbols, codes and lengths."""
        return self.codebook_size + self.levels

    @property
    def longest(self) -> int:
        """The number of symbols in the longest sequence."""
        return self.candidates.blocks * (1 + self.candidates.levels[-1])

    def length_symbols(self, lengths: torch.Tensor) -> torch.Tensor:
        """Length symbols (...) of token counts (...).

        Raises:
            GrammarError: a count that is not one of the levels.
        """
        levels = _levels(self, lengths.device)
        digits = torch.searchsorted(levels, lengths.contiguous()).clamp_max(self.levels - 1)
        unknown = levels[digits] != lengths
        if unknown.any():
            raise GrammarError(f"{int(lengths[unknown][0])} tokens is not one of the levels {self.candidates.levels}")
        return self.codebook_size + digits

    def build(self, codes: Codes) -> Sequences:
        """Build the sequences of codes (B, n) under assignments (B, K).

        Raises:
            GrammarError: codes outside the codebook, a length that is not one of the levels, or a number of blocks or
                codes that does not match the assignments.
        """
        blocks = self.candidates.blocks
        if codes.lengths.ndim != 2 or codes.lengths.shape[1] != blocks:
            raise GrammarError(f"assignments must be (B, {blocks}), got {tuple(codes.lengths.shape)}")
        heads = self.length_symbols(codes.lengths)
        expected = (len(codes.lengths), int(codes.lengths.sum(1).max()))
        if tuple(codes.codes.shape) != expected:
            raise GrammarError(f"codes must be {expected} for these assignments, got {tuple(codes.codes.shape)}")
        layout = Layout.of(codes.lengths + 1)
        # Padding repeats the last code; it is set to 0 at the end.
        source = torch.arange(layout.block.shape[1], device=heads.device) - layout.block - 1
        spread = codes.codes.gather(1, source.clamp(0, expected[1] - 1))
        _check_codes(spread, (layout.slot > 0) & layout.valid, self.codebook_size)
        symbols = torch.where(layout.slot == 0, heads.gather(1, layout.block), spread)
        return Sequences(symbols.masked_fill(~layout.valid, 0), codes.lengths.sum(1) + blocks)

    def parse(self, sequences: Sequences) -> Codes:
        """Parse complete sequences into codes and assignments.

        Raises:
            GrammarError: a truncated sequence, a code in place of a length or the reverse, an unknown symbol, or
                symbols after the end.
        """
        symbols, counts = sequences.symbols, sequences.counts
        if symbols.ndim != 2 or symbols.shape[:1] != counts.shape or bool((counts > symbols.shape[1]).any()):
            raise GrammarError(f"{tuple(symbols.shape)} symbols cannot hold sequences of {counts.tolist()} symbols")
        lengths = self._read_lengths(symbols, counts)
        layout = Layout.of(lengths + 1)
        symbols = symbols[:, : layout.valid.shape[1]]
        is_code = (layout.slot > 0) & layout.valid
        _check_codes(symbols, is_code, self.codebook_size)
        return Codes.of_flat(symbols[is_code], lengths)

    def _read_lengths(self, symbols: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """(B, K) token counts, read by jumping from one length symbol to the next."""
        levels = _levels(self, symbols.device)
        position, lengths = torch.zeros_like(counts), []
        for block in range(self.candidates.blocks):
            _check_complete(position >= counts, counts, f"block {block} has no length symbol")
            digits = symbols.gather(1, position[:, None])[:, 0] - self.codebook_size
            illegal = (digits < 0) | (digits >= self.levels)
            if illegal.any():
                row = int(illegal.nonzero()[0])
                raise GrammarError(
                    f"sequence {row}: symbol {int(digits[row]) + self.codebook_size} at position {int(position[row])} "
                    f"is not a length symbol ({self.codebook_size} to {self.vocabulary - 1})"
                )
            lengths.append(levels[digits])
            position = position + 1 + lengths[-1]
            _check_complete(position > counts, counts, f"block {block} is incomplete")
        if (position < counts).any():
            row = int((position < counts).nonzero()[0])
            raise GrammarError(f"sequence {row} is complete after {int(position[row])} of {int(counts[row])} symbols")
        return torch.stack(lengths, 1)

    def start(self, batch: int, device: torch.device | str = "cpu") -> Progress:
        """Progress of `batch` empty sequences."""
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        return Progress(zeros + self.candidates.blocks, zeros)

    def legal(self, progress: Progress) -> torch.Tensor:
        """(B, vocabulary) True for symbols that may come next; none after a complete sequence."""
        is_length = torch.arange(self.vocabulary, device=progress.codes_left.device) >= self.codebook_size
        wants_code = progress.codes_left > 0
        return torch.where(is_length, progress.wants_length[:, None], wants_code[:, None])

    def advance(self, progress: Progress, symbols: torch.Tensor) -> Progress:
        """Advance every sequence by one symbol (B,).

        Raises:
            GrammarError: an illegal symbol, or one after a complete sequence.
        """
        digits = symbols - self.codebook_size
        wants_length, wants_code = progress.wants_length, progress.codes_left > 0
        is_length, is_code = (digits >= 0) & (digits < self.levels), (digits < 0) & (symbols >= 0)
        illegal = ~(wants_length & is_length | wants_code & is_code)
        if illegal.any():
            raise GrammarError(self._why_illegal(progress, symbols, int(illegal.nonzero()[0])))
        length = _levels(self, symbols.device)[digits.clamp_min(0)]
        codes_left = torch.where(wants_length, length, progress.codes_left - 1)
        return Progress(progress.blocks_left - wants_length.long(), codes_left)

    def _why_illegal(self, progress: Progress, symbols: torch.Tensor, row: int) -> str:
        symbol = int(symbols[row])
        if progress.done[row]:
            return f"sequence {row} is complete, symbol {symbol} comes after its end"
        if progress.wants_length[row]:
            expected = f"a length symbol ({self.codebook_size} to {self.vocabulary - 1})"
        else:
            expected = f"a code (0 to {self.codebook_size - 1})"
        return f"sequence {row}: expected {expected}, got symbol {symbol}"


@cache
def _levels(grammar: Grammar, device: torch.device) -> torch.Tensor:
    """(m,) token counts of the levels, cached per device: sampling needs them at every step."""
    return torch.tensor(grammar.candidates.levels, device=device)


def _check_codes(codes: torch.Tensor, valid: torch.Tensor, codebook_size: int) -> None:
    outside = valid & ((codes < 0) | (codes >= codebook_size))
    if outside.any():
        row, position = outside.nonzero()[0].tolist()
        raise GrammarError(
            f"sequence {row}: {int(codes[row, position])} at position {position} is outside the codebook "
            f"(0 to {codebook_size - 1})"
        )


def _check_complete(truncated: torch.Tensor, counts: torch.Tensor, what: str) -> None:
    if truncated.any():
        row = int(truncated.nonzero()[0])
        raise GrammarError(f"sequence {row} is truncated after {int(counts[row])} symbols: {what}")
