"""Conditions of frame prediction: the codes of the first frames of a clip.

Legend: B clips of a batch, C symbols of a condition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evatok.assignments.candidates import CandidateSet
from evatok.errors import EvatokError
from evatok.generation import code_cache
from evatok.generation.code_cache import Coder
from evatok.generation.grammar import Grammar
from evatok.models.precision import autocast
from evatok.tokenizers.codes import Codes, expand_assignment
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig

GIVEN = 5
"""Number of given frames in frame prediction (the paper's K600 protocol, Sec. 4.4)."""


class GenerationError(EvatokError, ValueError):
    """A request that the generator cannot serve, or a tokenizer that does not belong to it."""


def condition_blocks(shape: TokenizerConfig) -> int:
    """Number of temporal blocks that hold the given frames. Raises GenerationError if none is left to predict."""
    blocks = -(-GIVEN // shape.patch[0])
    if blocks >= shape.candidates.blocks:
        raise GenerationError(f"clips of {shape.frames} frames leave no block to predict after {GIVEN} given frames")
    return blocks


def condition_prefix(
    shape: TokenizerConfig, assignment: Sequence[int] | None, beside: int | None = None
) -> tuple[int, ...]:
    """Tokens of the condition's blocks: a fixed assignment's, or the paper's (512, 128) adapted to other levels.

    The paper's are the highest and the middle one of its five levels, and also the levels above and below the 256
    tokens per block of its fixed-length baselines. Other levels cannot always satisfy both: by default the highest and
    the middle one are taken, with `beside` the levels above and below it.

    Args:
        assignment: of a fixed-length tokenizer; None under a router.
        beside: a level, the tokens per block of a fixed-length baseline.
    """
    blocks, levels = condition_blocks(shape), shape.levels
    if assignment is not None:
        return tuple(assignment[:blocks])
    first, later = len(levels) - 1, len(levels) // 2
    if beside is not None:
        index = levels.index(beside)
        first, later = min(index + 1, first), max(index - 1, 0)
    return (levels[first], *(levels[later],) * (blocks - 1))


def condition_codes(tokenizer: AdaptiveTokenizer, clips: torch.Tensor, prefix: tuple[int, ...]) -> Codes:
    """Encode the first GIVEN frames of clips (B, 3, T, H, W) to codes (B, sum of prefix).

    The last given frame is repeated to the end of the clip; later frames of `clips` are not used. As the tokenizer is
    block-causal, blocks after the prefix do not influence the codes returned.

    Raises:
        GenerationError: a prefix with a length that is not one of the levels, or whose number of blocks does not match
            the given frames.
    """
    shape = tokenizer.config
    if len(prefix) != condition_blocks(shape) or not set(prefix) <= set(shape.levels):
        raise GenerationError(
            f"{GIVEN} given frames need {condition_blocks(shape)} blocks of levels {shape.levels}; the prefix {prefix} "
            "does not fit"
        )
    frames = [min(t, GIVEN - 1) for t in range(shape.frames)]
    assignment = (*prefix, *(shape.levels[0],) * (shape.candidates.blocks - len(prefix)))
    codes = tokenizer.encode(clips[:, :, frames], expand_assignment(assignment, len(clips)).to(clips.device))
    return Codes(codes.codes[:, : sum(prefix)], codes.lengths[:, : len(prefix)])


def condition_coder(tokenizer: AdaptiveTokenizer, sha256: str, prefix: tuple[int, ...], *, bf16: bool = False) -> Coder:
    """Make an encoder of the given frames of clips, for `code_cache.code_set`."""

    def encode(clips: torch.Tensor) -> Codes:
        with autocast(clips.device, bf16):
            return condition_codes(tokenizer, clips, prefix)

    rule = {"given": GIVEN, "filled": "the last given frame", "row": list(prefix)}
    return Coder(encode, code_cache.made_by(sha256, rule, bf16))


def condition_symbols(codes: Codes, grammar: Grammar) -> torch.Tensor:
    """(B, C) symbols, lengths and codes, of a condition; all clips share one prefix, so there is no padding.

    Args:
        grammar: of the tokenizer's complete clips.
    """
    prefix_grammar = Grammar(CandidateSet(grammar.candidates.levels, codes.lengths.shape[1]), grammar.codebook_size)
    return prefix_grammar.build(codes).symbols


def condition_length(prefix: Sequence[int]) -> int:
    """C, the number of symbols of a condition: its codes and one length per block."""
    return sum(prefix) + len(prefix)
