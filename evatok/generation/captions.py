"""Captions as a generator reads them: words of the closed vocabulary, or features of a frozen language model.

Legend: N captions, W words or tokens of the longest, E channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from evatok.data.embedded.scene_text import vocabulary
from evatok.generation.conditions import GenerationError
from evatok.models.text_encoders import FrozenText, load_text_encoder
from evatok.storage.shards import digest
from evatok.vtok import captions

WORDS = "words"
"""The closed vocabulary of the moving-shapes set, with an encoder trained together with the generator."""


@dataclass(frozen=True)
class Reader:
    """How captions are read.

    Attributes:
        source: WORDS, or what `load_text_encoder` takes.
        frozen: the language model; None for words.
    """

    source: str
    frozen: FrozenText | None = None

    @classmethod
    def of(cls, source: str) -> Reader:
        """Load a reader. Raises EncoderError for a language model that cannot be read."""
        return cls(source) if source == WORDS else cls(source, _loaded(source))

    @property
    def sha256(self) -> str:
        """Hash of the vocabulary, or of the frozen weights."""
        return digest({"words": list(vocabulary())}) if self.frozen is None else self.frozen.sha256

    @property
    def shape(self) -> dict[str, int]:
        """Return the fields of GeneratorConfig."""
        longest = captions.LONGEST if self.frozen is None else self.frozen.longest
        kind = {"text_words": len(vocabulary())} if self.frozen is None else {"text_channels": self.frozen.channels}
        return {**kind, "text_longest": longest}

    def read(self, said: Sequence[str]) -> torch.Tensor:
        """Read captions as words (N, W) int64, or features (N, W, E) float16, cut to the longest caption.

        Raises:
            CaptionError, EncoderError: an empty or too long caption, or a word that is not in the vocabulary.
        """
        if self.frozen is None:
            found = torch.from_numpy(captions.numbers(said))
            return found[:, : int((found != captions.PADDING).sum(1).max())]
        features = self.frozen(said)
        return features[:, : int((features != 0).any(-1).sum(1).max())]


@lru_cache(maxsize=1)
def _loaded(source: str) -> FrozenText:
    return load_text_encoder(source)


def check_same(reader: Reader, sha256: str) -> None:
    """Raise GenerationError if captions are no longer read as they were in training."""
    if reader.sha256 != sha256:
        raise GenerationError(
            f"captions are read by {reader.source!r} {reader.sha256[:12]}, the generator was taught with "
            f"{sha256[:12]}: give it the same language model, or train it again"
        )
