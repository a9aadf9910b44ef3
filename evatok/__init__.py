"""Reproduce, compare and benchmark adaptive-length video tokenizers.

    import evatok

    protocol = evatok.protocols.get("embedded-reconstruction")
    clips = evatok.protocols.clips_of(protocol, limit=32)
    evatok.evaluate(my_tokenizer, clips, protocol, limit=32).metrics["psnr"]

Names are imported when they are first used, so `import evatok` is cheap.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


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
