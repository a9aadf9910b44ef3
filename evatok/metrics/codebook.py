"""Cost of a tokenizer's codes and use of its codebook: usage, perplexity, bits, lengths.

Codes of clips with different lengths are padded with -1, which is never counted. Counts can be summed over batches, so
a data set of any size is measured in pieces. All functions accept tensors, arrays and nested lists.

Legend: B clips, K temporal blocks, N codes of the longest clip, T frames, H x W pixels.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

PADDING = -1
"""The code that marks padding."""

Integers: TypeAlias = Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]]


def codebook_usage(codes: Integers, size: int) -> float:
    """Fraction of the `size` codes that occur at all, in (0, 1]. Raises ValueError, see `code_counts`."""
    return usage_of(code_counts(codes, size))


def codebook_perplexity(codes: Integers, size: int) -> float:
    """exp of the entropy of the codes' frequencies: from 1 (only one code) to `size` (all equally often).

    Raises ValueError, see `code_counts`.
    """
    return perplexity_of(code_counts(codes, size))


def code_counts(codes: Integers, size: int) -> Tensor:
    """Count each code in `codes` (any shape, -1 is padding): (size,) int64 on the CPU.

    Raises ValueError for an empty codebook, floating point values, and codes outside [0, size) other than -1.
    """
    if size < 1:
        raise ValueError(f"a codebook has at least one code, got {size}")
    flat = _integers(codes, "codes").flatten()
    wrong = flat[(flat < PADDING) | (flat >= size)]
    if len(wrong):
        raise ValueError(f"codes must lie in [0, {size}), or be {PADDING} for padding, got {int(wrong[0])}")
    return torch.bincount(flat[flat != PADDING], minlength=size)


def usage_of(counts: Tensor) -> float:
    """`codebook_usage` from counts (size,) summed over batches. Raises ValueError if all are 0."""
    _check_counts(counts)
    return float((counts > 0).double().mean())


def perplexity_of(counts: Tensor) -> float:
    """`codebook_perplexity` from counts (size,) summed over batches. Raises ValueError if all are 0."""
    _check_counts(counts)
    shares = counts[counts > 0].double() / counts.sum()
    return math.exp(-float((shares * shares.log()).sum()))


def bits_per_pixel(lengths: Integers, codebook_size: int, levels: int, shape: tuple[int, int, int]) -> Tensor:
    """Bits per pixel (B,) float64 of clips with lengths (B, K), the tokens per block.

    A token costs log2(codebook_size) bits, and each block's length, one of `levels`, log2(levels) more: 0 for a
    fixed-length tokenizer. Both assume equally likely symbols, without entropy coding.

    Args:
        shape: (T, H, W) of the encoded clips; a pixel is one position in one frame, with all its channels.

    Raises ValueError for other shapes, blocks without tokens, fewer levels than lengths that occur, and empty clips.
    """
    table = _lengths(lengths)
    if table.ndim != 2:
        raise ValueError(f"lengths must be the tokens of each block, (B, K), got the shape {tuple(table.shape)}")
    if codebook_size < 1 or min(shape) < 1 or len(shape) != 3:
        raise ValueError(f"no bits per pixel with a codebook of {codebook_size} and clips of (T, H, W) = {shape}")
    different = len(table.unique())
    if levels < different:
        raise ValueError(f"{different} different lengths occur, so they cannot come from {levels} levels")
    bits = table.sum(dim=1).double() * math.log2(codebook_size) + table.shape[1] * math.log2(levels)
    return bits / math.prod(shape)


def mean_tokens(lengths: Integers) -> float:
    """Mean tokens per clip, from lengths (B, K) or (B,). Raises ValueError, see `length_histogram`."""
    return float(_totals(lengths).double().mean())


def length_histogram(lengths: Integers) -> dict[int, int]:
    """Number of clips by total tokens, shortest first, from lengths (B, K) or (B,).

    Raises ValueError for other shapes, floating point values and lengths below 1.
    """
    tokens, clips = _totals(lengths).unique(return_counts=True)
    return dict(zip(tokens.tolist(), clips.tolist(), strict=True))


def _totals(lengths: Integers) -> Tensor:
    table = _lengths(lengths)
    if table.ndim not in (1, 2):
        raise ValueError(f"lengths must have the shape (B, K) or (B,), got {tuple(table.shape)}")
    return table.sum(dim=1) if table.ndim == 2 else table


def _lengths(lengths: Integers) -> Tensor:
    table = _integers(lengths, "lengths")
    if table.numel() == 0 or int(table.min()) < 1:
        raise ValueError("lengths must be positive numbers of tokens, at least one of them")
    return table


def _integers(values: Integers, name: str) -> Tensor:
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, not {tensor.dtype}")
    return tensor.long()


def _check_counts(counts: Tensor) -> None:
    if counts.ndim != 1 or int(counts.sum()) < 1:
        raise ValueError("no codes were counted: the input is empty or only padding")
