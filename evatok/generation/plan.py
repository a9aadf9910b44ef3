"""Where the symbols of a batch of sequences lie, computed before the batch moves to a device.

Computed on a GPU, every training step would have to wait for the result.

Legend: B sequences, N symbols of the longest, P positions of the prefix, R positions in all, M symbols in all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from evatok.generation.grammar import Sequences
from evatok.storage.transfer import moved
from evatok.tokenizers.codes import left_mask


@dataclass(frozen=True)
class Plan:
    """The positions of packed sequences, each preceded by a prefix; the last symbol predicts nothing.

    Attributes:
        longest: N.
        symbols: (M,) places in (B, N) of the symbols.
        rows: (R,) places in (B, P + N - 1) of the positions.
        positions: (R,) position of each in its sequence.
        predicting: (M,) which of the R positions predict a symbol.
        codes: which of the M symbols are codes.
        lengths: which of them are lengths.
    """

    longest: int
    symbols: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    predicting: torch.Tensor
    codes: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, sequences: Sequences, prefix: int, codes: int) -> Plan:
        """Plan sequences after a prefix of P symbols; symbols below `codes` are codes."""
        longest = int(sequences.counts.max())
        symbols = sequences.valid.flatten().nonzero()[:, 0]
        width = prefix + longest - 1
        rows = left_mask(sequences.counts + prefix - 1, width).flatten().nonzero()[:, 0]
        positions, is_code = rows % width, sequences.symbols.flatten()[symbols] < codes
        predicting, of_codes, of_lengths = (
            mask.nonzero()[:, 0] for mask in (positions >= prefix - 1, is_code, ~is_code)
        )
        return cls(longest, symbols, rows, positions, predicting, of_codes, of_lengths)

    def to(self, device: torch.device | str) -> Plan:
        """Return the same plan on a device."""
        places = (moved(getattr(self, field.name), device) for field in fields(self)[1:])
        return Plan(self.longest, *places)
