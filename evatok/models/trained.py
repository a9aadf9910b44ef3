"""Checkpoint contents, ready for use: one `load` for every kind of network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from evatok.storage import checkpoints
from evatok.storage.checkpoints import Checkpoint


class Trained:
    """A network, or an object with a network `module`, that is saved as a checkpoint of its own kind.

    Attributes:
        KIND: the kind that its checkpoints' headers name.
        checkpoint: header of the checkpoint it was loaded from (sha256, config, parents, facts), without the weights;
            only loaded networks have it.
    """

    KIND: ClassVar[str]
    checkpoint: Checkpoint

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu", **parts: Any) -> Self:
        """Load a checkpoint: the network frozen, in eval mode, on `device`.

        Args:
            parts: other checkpoints that the network needs; see `of_checkpoint` of its class.

        Raises:
            CheckpointError: the file is missing, damaged, or of another kind than this class.
        """
        checkpoint = checkpoints.load(path, cls.KIND)
        with checkpoints.built_from(path):
            model = cls.of_checkpoint(replace(checkpoint, weights={}), Path(path), **parts)
        network = model if isinstance(model, nn.Module) else getattr(model, "module")  # noqa: B009 (not of every class)
        checkpoint.fill(network)
        network.eval().requires_grad_(False)
        model.check_weights(Path(path))
        network.to(device)
        return model

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, path: Path, **parts: Any) -> Self:
        """Build the network that a header describes, with its `checkpoint`, before its weights are filled in.

        Args:
            path: the checkpoint's, for error messages.
        """
        raise NotImplementedError

    def check_weights(self, path: Path) -> None:
        """Raise EvatokError for loaded weights that belong to something else."""
