"""Differentiable augmentation of clips (DiffAug, arXiv 2006.10738), which keeps a discriminator from overfitting.

Real and reconstructed clips are augmented before the discriminator sees them, and gradients flow through the
augmentation to the reconstruction. All frames of a clip share one draw, as if the camera moved.

Legend: B clips, T frames, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from evatok.storage import ranks, transfer

POLICY = ("colour", "translation", "cutout")
_SHIFT = 1 / 8  # of a side, DiffAug's


def diff_augment(
    clips: torch.Tensor, generator: torch.Generator, policy: Sequence[str] = POLICY, cutout: float = 0.2
) -> torch.Tensor:
    """Augment clips (B, 3, T, H, W) in [0, 1], each with its own draw; equally seeded generators draw the same.

    Colours are not clamped, so that no gradient is lost, and may lie slightly outside [0, 1]. Cut-out areas and areas
    moved in from outside are mid-grey.

    Args:
        generator: on the CPU, so that draws are the same on all devices.
        policy: augmentations in order: "colour" (brightness, saturation, contrast), "translation" by up to an eighth of
            a side, "cutout" of a square.
        cutout: side of the square, as a fraction of the clip's side (DiffAug: 0.5; GigaTok: 0.2).

    Raises:
        ValueError: an unknown augmentation, or clips of the wrong shape.
    """
    unknown = [name for name in policy if name not in POLICY]
    if unknown:
        raise ValueError(f"unknown augmentation {unknown[0]!r}: {', '.join(POLICY)}")
    if clips.ndim != 5 or clips.shape[1] != 3:
        raise ValueError(f"clips must be (B, 3, T, H, W), got {tuple(clips.shape)}")
    centred = 2 * clips - 1
    for name in policy:
        if name == "colour":
            centred = _recolour(centred, generator)
        elif name == "translation":
            centred = _translate(centred, generator)
        else:
            centred = _cut_out(centred, generator, cutout)
    return (centred + 1) / 2


def _recolour(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift brightness by up to 0.5, scale saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    draws = ranks.share(torch.rand(3, ranks.whole(len(clips)), 1, 1, 1, 1, generator=generator), dim=1)
    draws = transfer.moved(draws.to(clips.dtype), clips.device)
    clips = clips + (draws[0] - 0.5)
    grey = clips.mean(1, keepdim=True)
    clips = (clips - grey) * (2 * draws[1]) + grey
    mean = clips.mean((1, 2, 3, 4), keepdim=True)
    return (clips - mean) * (draws[2] + 0.5) + mean


def _translate(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    height, width = clips.shape[-2:]
    most_y, most_x = round(height * _SHIFT), round(width * _SHIFT)
    count = ranks.whole(len(clips))
    down = ranks.share(torch.randint(2 * most_y + 1, (count,), generator=generator)).tolist()
    right = ranks.share(torch.randint(2 * most_x + 1, (count,), generator=generator)).tolist()
    padded = F.pad(clips, (most_x, most_x, most_y, most_y))
    moved = [clip[..., y : y + height, x : x + width] for clip, y, x in zip(padded, down, right, strict=True)]
    return torch.stack(moved)


def _cut_out(clips: torch.Tensor, generator: torch.Generator, share: float) -> torch.Tensor:
    """Cut out squares centred anywhere in the clip, cropped at its border."""
    inside = [_within(side, share, len(clips), generator) for side in clips.shape[-2:]]
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return clips * transfer.moved((~cut).to(clips.dtype), clips.device)[:, None, None]


def _within(side: int, share: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """(B, side) booleans, True for share * side pixels around a centre drawn for each clip."""
    length = round(share * side)
    start = ranks.share(torch.randint(side, (ranks.whole(count), 1), generator=generator)) - length // 2
    pixel = torch.arange(side)[None]
    return (pixel >= start) & (pixel < start + length)
