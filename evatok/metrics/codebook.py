"""What a tokenizer's codes cost and how well they use the codebook: usage, perplexity, bits, lengths.

Codes of clips with unlike lengths stand in one array padded with -1, which never counts. All counts can be added over
batches, so a data set of any size is measured in pieces. The functions take tensors, arrays and nested lists.

Shape letters: B clips, K temporal blocks, N codes of the longest clip, T frames, H x W pixels.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

PADDING = -1
"""The code that is none."""

Integers: TypeAlias = Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]]


def codebook_usage(codes: Integers, size: int) -> float:
    """The share of the `size` codes that occur at all, in (0, 1]. Raises ValueError as `code_counts`."""
    return usage_of(code_counts(codes, size))


def codebook_perplexity(codes: Integers, size: int) -> float:
    """exp of the entropy of the codes' frequencies: from 1 (one code alone) to `size` (all equally often).

    Raises ValueError as `code_counts`.
    """
    return perplexity_of(code_counts(codes, size))


def code_counts(codes: Integers, size: int) -> Tensor:
    """How often each code occurs in `codes` (any shape, -1 is padding): (size,) int64 on the CPU.

    Raises ValueError for a codebook without codes, floating point values, and codes outside [0, size) and not -1.
    """
    if size < 1:
        raise ValueError(f"a codebook has at least one code, got {size}")
    flat = _integers(codes, "codes").flatten()
    wrong = flat[(flat < PADDING) | (flat >= size)]
    if len(wrong):
        raise ValueError(f"codes must lie in [0, {size}), or be {PADDING} for padding, got {int(wrong[0])}")
    return torch.bincount(flat[flat != PADDING], minlength=size)


def usage_of(counts: Tensor) -> float:
    """As `codebook_usage`, from counts (size,) added over batches. Raises ValueError where nothing was counted."""
    _check_counts(counts)
    return float((counts > 0).double().mean())


def perplexity_of(counts: Tensor) -> float:
    """As `codebook_perplexity`, from counts (size,) added over batches. Raises ValueError where all are 0."""
    _check_counts(counts)
    shares = counts[counts > 0].double() / counts.sum()
    return math.exp(-float((shares * shares.log()).sum()))


def code_lengths(codes: Integers) -> Tensor:
    """Codes (B, N) padded with -1 to the number of codes of each clip: (B,) int64. Raises ValueError otherwise."""
    table = _integers(codes, "codes")
    if table.ndim != 2:
        raise ValueError(f"codes must have the shape (B, N), got {tuple(table.shape)}")
    return (table != PADDING).sum(dim=1)


def bits_per_pixel(lengths: Integers, codebook_size: int, levels: int, shape: tuple[int, int, int]) -> Tensor:
    """Bits a clip costs, over its pixels: lengths (B, K), tokens of each block, to (B,) float64.

    A token costs log2(codebook_size), and each block's length, one symbol out of `levels`, log2(levels) more: 0 for a
    tokenizer of one fixed length. Both are what equally likely symbols need, without entropy coding.

    Args:
        shape: (T, H, W) of the clips as they were coded; a pixel is one place in one frame, whatever its channels.

    Raises ValueError for other shapes, blocks without tokens, fewer levels than lengths that occur, an empty clip.
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
    """The mean number of tokens of a clip, from lengths (B, K) or (B,). Raises ValueError as `length_histogram`."""
    return float(_totals(lengths).double().mean())


def length_histogram(lengths: Integers) -> dict[int, int]:
    """How many clips have how many tokens in all, shortest first, from lengths (B, K) or (B,).

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
        raise ValueError("no codes were counted: there is nothing but padding, or nothing at all")
