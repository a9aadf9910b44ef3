"""Systems that can be measured: anything that maps clips to reconstructions.

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
    """Reconstructions, and what a tokenizer used for them.

    Attributes:
        clips: (B, 3, T, H, W) in [0, 1].
        codes: (M,) of the batch without padding, clip after clip; None for systems without tokens.
        lengths: (B, K) tokens per block; None likewise.
    """

    clips: torch.Tensor
    codes: torch.Tensor | None = None
    lengths: torch.Tensor | None = None


class System:
    """Base class: maps clips to reconstructions.

    Attributes:
        identity: in JSON types, including the hash of its weights; {} if unknown, in which case an interrupted
            evaluation cannot be resumed.
        codebook_size: of its codes; None if it returns none.
        length_levels: number of lengths that a block can have; 1 for a fixed length.
    """

    identity: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)
    codebook_size: int | None = None
    length_levels: int = 1

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        """Reconstruct clips (B, 3, T, H, W), given their indices (B,) among the protocol's clips."""
        raise NotImplementedError

    def check(self, count: int, limited: bool) -> None:
        """Raise EvaluationError if the system cannot serve `count` clips; with `limited` it may hold more."""

    def pair(self, names: Sequence[str] | None) -> None:
        """Receive the names of the clips, in order, before they are measured; None if they have no names."""


class Identity(System):
    """Returns its input, which every metric should rate as perfect."""

    identity = {"system": "identity"}  # noqa: RUF012

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        return Output(clips)


class Foreign(System):
    """Any function of clips (B, 3, T, H, W) that returns clips or an `Output`."""

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
    """Our tokenizer under an assignment rule.

    `identity` should name the weights; the rule, precision and code are added to it, unless it is {}.
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
        lengths = self.rule(clips, indices).to(clips.device)
        with autocast(clips.device, self.bf16):
            codes = self.tokenizer.encode(clips, lengths)
            made = self.tokenizer.decode(codes)
        return Output(made.float(), codes.codes[self.tokenizer.layout(lengths).valid], lengths)


def as_system(thing: Any) -> System:
    """Wrap a System, an object with encode and decode, or a function of clips as a System.

    Raises:
        EvaluationError: none of these, or our tokenizer without an assignment rule.
    """
    if isinstance(thing, System):
        return thing
    if isinstance(thing, AdaptiveTokenizer):
        raise EvaluationError("an adaptive-length tokenizer needs assignments: use Adaptive(tokenizer, rule, {})")
    if hasattr(thing, "encode") and hasattr(thing, "decode"):
        return Foreign(lambda clips: thing.decode(thing.encode(clips)))
    if callable(thing):
        return Foreign(thing)
    raise EvaluationError(f"cannot measure a {type(thing).__name__}: pass a function, or encode and decode")


class Reconstructed(System):
    """A folder of reconstructions, paired with the reference by name if that is in files too, else by order.

    The identity records which, as `paired_by`.
    """

    def __init__(self, clips: FolderClips) -> None:
        self.clips = clips
        self.files: list[int] | None = None
        self.identity = {"system": "folder", **clips.identity, "paired_by": "order"}

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        if self.files is None:
            made = self.clips[int(indices[0]) : int(indices[-1]) + 1]
        else:
            files = (self.files[int(index)] for index in indices)
            made = np.concatenate([self.clips[file : file + 1] for file in files])
        if made.dtype == np.uint8:
            return Output(to_network(made, clips.device))
        return Output(rearrange(torch.from_numpy(made), "b t h w c -> b c t h w").float().to(clips.device))

    def check(self, count: int, limited: bool) -> None:
        held = len(self.clips)
        if held < count or (held > count and not limited):
            raise EvaluationError(
                f"{self.clips.folder} holds {held} clips, the reference {count}: they must be the same clips "
                "in the same order"
            )

    def pair(self, names: Sequence[str] | None) -> None:
        """Find each clip's reconstruction by name.

        Raises:
            EvaluationError: two files of one name, or none for a clip; paired by order, they would be other clips.
        """
        file_names = self.clips.names
        self.files, self.identity = None, {**self.identity, "paired_by": "order"}
        if names is None or file_names is None:
            return
        file_of = {name: file for file, name in enumerate(file_names)}
        missing = [(index, name) for index, name in enumerate(names) if name not in file_of]
        if missing or len(file_of) < len(file_names):
            repeated = ((i, n) for i, n in enumerate(file_names) if file_of[n] != i)
            index, name = missing[0] if missing else next(repeated)
            cause = f"no clip {name} ({file_names[index]} is its clip {index})" if missing else f"several clips {name}"
            raise EvaluationError(
                f"{self.clips.folder} has {cause}: clips of two folders are paired by name. Name a reconstruction as "
                "its reference, or pass one array (N, T, H, W, 3) in the order of the reference"
            )
        self.files = [file_of[name] for name in names]
        self.identity = {**self.identity, "paired_by": "name"}
