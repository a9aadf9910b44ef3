"""Measure any tokenizer under a named protocol.

    from evatok import evaluation
    from evatok.evaluation import protocols
    protocol = protocols.get("embedded-reconstruction")
    evaluation.evaluate(my_tokenizer, protocols.clips_of(protocol), protocol).metrics["rfvd"]

What reconstructs may be a function of clips, any object with `encode` and `decode`, or a `System` (our tokenizer
with its assignments, a folder of clips made elsewhere, the identity). Clips stream through in shards; with a folder
`work`, an interrupted evaluation goes on where it stopped.

Legend: N clips, B clips of a batch, T frames, H x W pixels, K temporal blocks, M codes. Clips are (B, 3, T, H, W)
floats in [0, 1] for a network and uint8 (N, T, H, W, 3) where they are kept.
"""

from evatok.evaluation.folders import EvaluationError, FolderClips
from evatok.evaluation.measuring import Evaluation, chosen_metrics, evaluate, load_networks
from evatok.evaluation.summary import DISTRIBUTION, PER_CLIP
from evatok.evaluation.systems import (
    Adaptive,
    Foreign,
    Identity,
    Output,
    Reconstructed,
    System,
    as_system,
)

__all__ = [
    "DISTRIBUTION",
    "PER_CLIP",
    "Adaptive",
    "Evaluation",
    "EvaluationError",
    "FolderClips",
    "Foreign",
    "Identity",
    "Output",
    "Reconstructed",
    "System",
    "as_system",
    "chosen_metrics",
    "evaluate",
    "load_networks",
]
