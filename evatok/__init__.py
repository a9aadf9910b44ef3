"""Reproduce, compare and benchmark adaptive-length video tokenizers.

    import evatok

    protocol = evatok.protocols.get("embedded-reconstruction")
    clips = evatok.protocols.clips_of(protocol, limit=32)
    evatok.evaluate(my_tokenizer, clips, protocol, limit=32).metrics["psnr"]
    evatok.load("results/checkpoints/router-toy-pyramid-matched.safetensors").checkpoint.facts

Names are imported when they are first used, so `import evatok` is cheap.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from evatok.assignments.candidates import CandidateSet as CandidateSet
    from evatok.data.sets import clip_set as clip_set
    from evatok.evaluation import evaluate as evaluate
    from evatok.evaluation import protocols as protocols
    from evatok.generation.video_generator import VideoGenerator as VideoGenerator
    from evatok.metrics import fvd as fvd
    from evatok.metrics import lpips as lpips
    from evatok.metrics import psnr as psnr
    from evatok.routing.trained_router import Router as Router
    from evatok.tokenizers.evatok import AdaptiveTokenizer as AdaptiveTokenizer

_HOMES = {
    "AdaptiveTokenizer": "evatok.tokenizers.evatok",
    "CandidateSet": "evatok.assignments.candidates",
    "Router": "evatok.routing.trained_router",
    "VideoGenerator": "evatok.generation.video_generator",
    "clip_set": "evatok.data.sets",
    "evaluate": "evatok.evaluation",
    "fvd": "evatok.metrics",
    "lpips": "evatok.metrics",
    "protocols": "evatok.evaluation",
    "psnr": "evatok.metrics",
}
"""Where each public name lives."""

_KINDS = {
    "classifier": "evatok.metrics.class_consistency:Classifier",
    "generator": "evatok.generation.video_generator:VideoGenerator",
    "image_encoder": "evatok.vtok.image_encoder:ImageEncoder",
    "router": "evatok.routing.trained_router:Router",
    "tokenizer": "evatok.tokenizers.evatok:AdaptiveTokenizer",
    "video_language_model": "evatok.vtok.language_model:VideoLanguageModel",
    "videoflextok": "evatok.tokenizers.videoflextok.model:VideoFlexTok",
}
"""The class of each kind of checkpoint."""


def load(path: Path | str, device: torch.device | str = "cpu", **parts: Any) -> Any:
    """Load a checkpoint of any kind: its network frozen, in eval mode, on `device`, its header as `.checkpoint`.

    Where only one kind will do, `load` of its class refuses the others.

    Args:
        parts: what else the network needs: `tokenizer=PATH` of a generator whose tokenizer does not lie beside it,
            `codec=FOLDER` of a VideoFlexTok that was trained on VidTok's latents.

    Raises:
        CheckpointError: the file is absent, damaged, or of no known kind.
    """
    from evatok.storage import checkpoints

    kind = checkpoints.kind_of(Path(path))
    if kind not in _KINDS:
        raise checkpoints.CheckpointError(f"{path}: a checkpoint of kind {kind!r}; known are {', '.join(_KINDS)}")
    module, _, name = _KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name).load(path, device, **parts)


__all__ = ["__version__", "load", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("evatok")
    if name not in _HOMES:
        raise AttributeError(f"module 'evatok' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}")
    home = importlib.import_module(_HOMES[name])
    try:
        return getattr(home, name)
    except AttributeError:
        return importlib.import_module(f"{_HOMES[name]}.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
