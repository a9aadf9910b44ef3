"""The codes that a stage is planned on in a dry run: of a checkpoint if there is one, else of the configured size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evatok.data.clips import ClipSetError
from evatok.experiments.setting import of_size
from evatok.generation.captions import WORDS, Reader
from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.storage import checkpoints
from evatok.tokenizers.config import MODALITIES, TokenizerConfig
from evatok.tokenizers.videoflextok import KIND, VIDEOFLEXTOK_SIZES, VideoFlexTokConfig

_CHANNELS = {"minilm": 384, "google/t5-v1_1-xl": 2048}
"""Channels of the language models that read captions."""


def coding(config: dict[str, Any]) -> TokenizerConfig:
    """Return the shape of the tokenizer that scores or codes: the checkpoint's if it exists, else its size's."""
    if Path(config["tokenizer"]).is_file():
        return TokenizerConfig.from_dict(checkpoints.load(config["tokenizer"], "tokenizer").config)
    return of_size(MODALITIES["video"], config["size"])


def sequences_of(config: dict[str, Any]) -> tuple[Grammar | OrderedGrammar, int]:
    """Return the grammar of the tokenizer's codes, and the tokens per clip whose operations are counted.

    A checkpoint tells its family. Captions are learned on VideoFlexTok's codes, so that without one a generator from
    captions is on VideoFlexTok's of the configured size, and any other on EVATok's.

    Raises:
        GrammarError, FlexTokError: an order, tokens or frames that VideoFlexTok's tokenizer does not support.
    """
    path = Path(config["tokenizer"])
    trained = path.is_file()
    if checkpoints.kind_of(path) == KIND if trained else config["task"] == "text":
        own = VideoFlexTokConfig.from_dict(checkpoints.load(path, KIND).config) if trained else None
        flexible = own or of_size(VIDEOFLEXTOK_SIZES, config["size"])
        ordered = OrderedGrammar.of(flexible, config["order"], frames=config["frames"], most=config["kept"])
        return ordered, ordered.longest
    shape = coding(config)
    if not trained and config["size"] == "paper":
        shape = replace(shape, codebook_size=8192)  # for finals on UCF-101 and Kinetics-600 [Sec. 4.1]
    return Grammar.of(shape), shape.candidates.baseline * shape.candidates.blocks


def captions_of(config: dict[str, Any]) -> dict[str, int]:
    """Return how captions are read, as fields of GeneratorConfig, without loading a language model.

    Raises:
        ClipSetError: a language model whose shape is known only to its folder, which is not given.
    """
    source = config["text"]
    if source == WORDS:
        return Reader(source).shape
    if Path(source).is_dir():
        import transformers

        return {"text_channels": transformers.AutoConfig.from_pretrained(source, local_files_only=True).hidden_size}
    if source not in _CHANNELS:
        raise ClipSetError(
            f"{source}: its shape is not known without its folder; a dry run knows {', '.join(_CHANNELS)}"
        )
    return {"text_channels": _CHANNELS[source]}
