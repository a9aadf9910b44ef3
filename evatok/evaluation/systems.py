"""What can be measured: anything that makes clips of clips.

Legend: B clips of a batch, T frames, H x W pixels, K temporal blocks, M codes. Clips are (B, 3, T, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange

from evatok import models, routing, tokenizers
from evatok.assignments.rules import Rule
from evatok.data.clips import to_network
from evatok.evaluation.folders import EvaluationError, FolderClips
from evatok.models.precision import autocast
from evatok.storage.shards import package_version
from evatok.tokenizers.evatok import AdaptiveTokenizer


@dataclass(frozen=True)
class Output:
    """clips (B, 3, T, H, W) in [0, 1]; of tokenizers, codes (M,) of the batch without padding, clip after clip, and
    lengths (B, K), the tokens of each block."""

    clips: torch.Tensor
    codes: torch.Tensor | None = None
    lengths: torch.Tensor | None = None


class System:
    """Something that makes clips of clips.

    Attributes:
        identity: what it is, in JSON types, down to the hash of its weights; {} where that is not known, and then an
            interrupted evaluation cannot be resumed.
        codebook_size: of its codes, if it gives any.
        length_levels: how many lengths a block can have; 1 where they are fixed.
    """

    identity: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)
    codebook_size: int | None = None
    length_levels: int = 1

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        """Clips (B, 3, T, H, W) and their numbers (B,) in the protocol's list to their reconstructions."""
        raise NotImplementedError

    def check(self, count: int, limited: bool) -> None:
        """Raise EvaluationError where it cannot serve `count` clips; `limited` allows it to have more."""

    def pair(self, names: Sequence[str] | None) -> None:
        """Learn the names of the clips to come, in their order; None where they have none."""


class Identity(System):
    """Gives back what it gets: what every metric should call perfect."""

    identity = {"system": "identity"}  # noqa: RUF012

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        return Output(clips)


class Foreign(System):
    """Anybody's function of clips (B, 3, T, H, W), which returns clips or an `Output`."""

    def __init__(
        self,
        function: Callable[[torch.Tensor], Any],
        identity: dict[str, Any] | None = None,
        *,
        codebook_size: int | None = None,
        length_levels: int = 1,
    ) -> None:
        self.function, self.identity = function, identity or {}
        self.codebook_size, self.length_levels = codebook_size, length_levels

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        made = self.function(clips)
        return made if isinstance(made, Output) else Output(made)


class Adaptive(System):
    """Our tokenizer under a rule of assignment.

    `identity` should name the weights; it gains the rule, precision and code. {} stays {}.
    """

    def __init__(
        self, tokenizer: AdaptiveTokenizer, rule: Rule, identity: dict[str, Any], *, bf16: bool = False
    ) -> None:
        self.tokenizer, self.rule, self.bf16 = tokenizer.eval(), rule, bf16
        self.identity = {}
        if identity:
            self.identity = {
                **identity,
                **rule.identity,
                "precision": "bf16" if bf16 else "fp32",
                "code": package_version(models, tokenizers, routing),
            }
        self.codebook_size = tokenizer.config.codebook_size
        self.length_levels = len(tokenizer.config.levels)

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        lengths = self.rule(clips, indices)
        with autocast(clips.device, self.bf16):
            codes = self.tokenizer.encode(clips, lengths)
            made = self.tokenizer.decode(codes)
        return Output(made.float(), codes.codes[self.tokenizer.layout(lengths).valid], lengths)


def as_system(thing: Any) -> System:
    """A System of anything that can be one: a System, an object with encode and decode, a function of clips.

    Raises:
        EvaluationError: none of these, or our tokenizer without a rule of assignment.
    """
    if isinstance(thing, System):
        return thing
    if isinstance(thing, AdaptiveTokenizer):
        raise EvaluationError("a tokenizer of adaptive length needs assignments: Adaptive(tokenizer, rule, {})")
    if hasattr(thing, "encode") and hasattr(thing, "decode"):
        return Foreign(lambda clips: thing.decode(thing.encode(clips)))
    if callable(thing):
        return Foreign(thing)
    raise EvaluationError(f"a {type(thing).__name__} reconstructs nothing: give a function, or encode and decode")


class Reconstructed(System):
    """A folder of clips made elsewhere: by name where the reference lies in files too, else in its order.

    The identity tells which, as `paired_by`.
    """

    def __init__(self, clips: FolderClips) -> None:
        self.clips = clips
        self.places: list[int] | None = None
        self.identity = {"system": "folder", **clips.identity, "paired_by": "order"}

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        if self.places is None:
            made = self.clips[int(indices[0]) : int(indices[-1]) + 1]
        else:
            found = (self.places[int(index)] for index in indices)
            made = np.concatenate([self.clips[place : place + 1] for place in found])
        if made.dtype == np.uint8:
            return Output(to_network(made, clips.device))
        return Output(rearrange(torch.from_numpy(made), "b t h w c -> b c t h w").float().to(clips.device))

    def check(self, count: int, limited: bool) -> None:
        held = len(self.clips)
        if held < count or (held > count and not limited):
            raise EvaluationError(
                f"{self.clips.folder} holds {held} clips for the {count} of the reference: they must be the same clips "
                "in the same order"
            )

    def pair(self, names: Sequence[str] | None) -> None:
        """Find each clip's reconstruction by its name.

        Raises:
            EvaluationError: two files of one name, or none for a clip: in their order they would be other clips.
        """
        own = self.clips.names
        self.places, self.identity = None, {**self.identity, "paired_by": "order"}
        if names is None or own is None:
            return
        places = {name: place for place, name in enumerate(own)}
        missing = [(index, name) for index, name in enumerate(names) if name not in places]
        if missing or len(places) < len(own):
            index, name = missing[0] if missing else next((i, n) for i, n in enumerate(own) if places[n] != i)
            told = f"no clip {name} ({own[index]} is its clip {index})" if missing else f"several clips {name}"
            raise EvaluationError(
                f"{self.clips.folder} has {told}: clips of two folders are paired by name. Name each reconstruction as "
                "its reference, or give one array (N, T, H, W, 3) in the order of the reference"
            )
        self.places = [places[name] for name in names]
        self.identity = {**self.identity, "paired_by": "name"}
