"""Shapes of the generator, and named sizes.

Legend: V vocabulary, P positions of the prefix.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.storage import checkpoints


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator.

    Attributes:
        vocabulary: V, codes and length symbols.
        levels: number of length symbols, the last ones of the vocabulary; 0 if all sequences are equally long.
        longest: symbols in the longest sequence.
        classes: number of classes; the embedding table has one more row, the null class.
        condition: symbols before the class, for frame prediction.
        text: S, caption vectors before the class, see `generation.text`; 0 without captions.
        text_words, text_channels: size of a closed vocabulary, or channels of frozen features; one of them is 0.
        text_layers, text_longest: layers over the caption, and its maximum number of words.
        positions: "learned" (a table) or "rope" (rotary embedding of queries and keys).
        dropout: of embeddings and residual branches, while training.
        class_dropout: probability that the null class replaces a class, while training.
    """

    vocabulary: int
    levels: int
    longest: int
    width: int
    layers: int
    heads: int
    classes: int = 0
    condition: int = 0
    text: int = 0
    text_words: int = 0
    text_channels: int = 0
    text_layers: int = 2
    text_longest: int = 80
    positions: str = "learned"
    dropout: float = 0.1
    class_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.positions not in ("learned", "rope"):
            raise ValueError(f"unknown positions {self.positions!r}; choose learned or rope")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 * {self.heads} heads")
        if bool(self.text) != bool(self.text_words) + bool(self.text_channels):
            raise ValueError(
                f"{self.text} vectors of captions with {self.text_words} words and {self.text_channels} channels: "
                "captions are either words or features"
            )
        if not 0 <= self.levels < self.vocabulary:
            raise ValueError(f"levels must be between 0 and vocabulary - 1 = {self.vocabulary - 1}, got {self.levels}")

    @classmethod
    def of(cls, grammar: Grammar | OrderedGrammar, size: str, **others: Any) -> GeneratorConfig:
        """Build a named size of GENERATOR_SIZES for a grammar; `others` override fields, such as `classes`."""
        if size not in GENERATOR_SIZES:
            raise ValueError(f"unknown generator size {size!r}; choose one of {', '.join(GENERATOR_SIZES)}")
        symbols = {"vocabulary": grammar.vocabulary, "levels": grammar.levels, "longest": grammar.longest}
        return cls(**{**symbols, **GENERATOR_SIZES[size], **others})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def prefix(self) -> int:
        """P, positions before the first length symbol."""
        return self.condition + self.text + 1

    @property
    def context(self) -> int:
        """Context length: positions of the longest sequence with its prefix."""
        return self.prefix + self.longest

    @property
    def hidden(self) -> int:
        """Width of the MLP: 8/3 of the model's, rounded up to a multiple of 256."""
        return 256 * math.ceil(8 * self.width // 3 / 256)


GENERATOR_SIZES: dict[str, dict[str, int]] = {
    "toy": {"width": 256, "layers": 4, "heads": 4},  # one CPU core
    "small": {"width": 512, "layers": 8, "heads": 8},  # one GPU, half an hour
    "B": {"width": 768, "layers": 12, "heads": 12},  # 99M, the paper's ablations
    "L": {"width": 1024, "layers": 24, "heads": 16},  # 327M
    "XL": {"width": 1280, "layers": 30, "heads": 20},  # 633M
    "toy-32": {"width": 32, "layers": 2, "heads": 2},  # and other sizes of VideoFlexTok's Figure 6
    "toy-64": {"width": 64, "layers": 2, "heads": 2},
    "toy-128": {"width": 128, "layers": 3, "heads": 2},
    "toy-384": {"width": 384, "layers": 6, "heads": 6},
}
