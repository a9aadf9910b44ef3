"""Measure any tokenizer under a named protocol.

    from evatok import evaluation
    from evatok.evaluation import protocols
    protocol = protocols.get("embedded-reconstruction")
    evaluation.evaluate(my_tokenizer, protocols.clips_of(protocol), protocol).metrics["rfvd"]

A system may be a function of clips, any object with `encode` and `decode`, or a `System` (our tokenizer with its
assignments, a folder of reconstructions, the identity). Clips stream through in shards; with a folder `work`, an
interrupted evaluation resumes where it stopped. Names are imported on first use, so that reading records does not need
PyTorch.

Legend: N clips, B clips of a batch, T frames, H x W pixels, K temporal blocks, M codes. Clips are (B, 3, T, H, W)
floats in [0, 1] for a network and uint8 (N, T, H, W, 3) where they are kept.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evatok.evaluation.folders import EvaluationError as EvaluationError
    from evatok.evaluation.folders import FolderClips as FolderClips
    from evatok.evaluation.measuring import Evaluation as Evaluation
    from evatok.evaluation.measuring import chosen_metrics as chosen_metrics
    from evatok.evaluation.measuring import evaluate as evaluate
    from evatok.evaluation.networks import load_networks as load_networks
    from evatok.evaluation.summary import DISTRIBUTION as DISTRIBUTION
    from evatok.evaluation.summary import PER_CLIP as PER_CLIP
    from evatok.evaluation.systems import Adaptive as Adaptive
    from evatok.evaluation.systems import Foreign as Foreign
    from evatok.evaluation.systems import Identity as Identity
    from evatok.evaluation.systems import Output as Output
    from evatok.evaluation.systems import Reconstructed as Reconstructed
    from evatok.evaluation.systems import System as System
    from evatok.evaluation.systems import as_system as as_system

_HOMES = {
    "Adaptive": "systems",
    "DISTRIBUTION": "summary",
    "Evaluation": "measuring",
    "EvaluationError": "folders",
    "FolderClips": "folders",
    "Foreign": "systems",
    "Identity": "systems",
    "Output": "systems",
    "PER_CLIP": "summary",
    "Reconstructed": "systems",
    "System": "systems",
    "as_system": "systems",
    "chosen_metrics": "measuring",
    "evaluate": "measuring",
    "load_networks": "networks",
}
"""The module of each name."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evatok.evaluation' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    return getattr(importlib.import_module(f"evatok.evaluation.{_HOMES[name]}"), name)
