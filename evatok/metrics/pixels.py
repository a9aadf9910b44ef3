"""Pixel distances of a clip and its reconstruction: L1, MSE and PSNR, one value per clip.

Clips are (B, 3, T, H, W) floats in [0, 1], tensors or NumPy arrays. Every function checks both clips first, because
each of the usual mistakes (0-255, [-1, 1], unclamped output, a NaN) yields a plausible value instead of an error.
"""

import numpy as np
import torch
from torch import Tensor

Clips = Tensor | np.ndarray

RANGE_SLACK = 1e-3
"""Tolerance outside [0, 1]: enough for the rounding of low-precision decoders, not for a wrong scale."""

PSNR_CEILING = 100.0
"""PSNR in dB at which values are capped in means over clips, because one infinite value would dominate the mean."""


def l1(real: Clips, fake: Clips) -> Tensor:
    """Mean absolute difference per clip (B,) float32 of clips (B, 3, T, H, W). Raises as `check_clips`."""
    return _difference(real, fake).abs().mean(dim=(1, 2, 3, 4))


def mse(real: Clips, fake: Clips) -> Tensor:
    """Mean squared difference per clip (B,) float32 of clips (B, 3, T, H, W). Raises as `check_clips`."""
    return _difference(real, fake).square().mean(dim=(1, 2, 3, 4))


def psnr(real: Clips, fake: Clips) -> Tensor:
    """PSNR per clip in dB, -10 log10 of its MSE: (B,) float32 of clips (B, 3, T, H, W).

    The MSE is averaged over the complete clip before the logarithm, as in LARP; a mean of per-frame PSNRs is larger.
    The PSNR of equal clips is infinite, and not capped here. Raises as `check_clips`.
    """
    return -10.0 * torch.log10(mse(real, fake))


def as_tensor(clips: Clips, name: str, device: torch.device | None = None) -> Tensor:
    """Convert clips to a tensor: a NumPy array moves to `device`, a tensor stays. Raises ValueError for other types."""
    if isinstance(clips, Tensor):
        return clips
    if not isinstance(clips, np.ndarray) or clips.dtype.kind not in "fiub":
        kind = f"an array of {clips.dtype}" if isinstance(clips, np.ndarray) else f"a {type(clips).__name__}"
        raise ValueError(f"{name} must be a tensor or a NumPy array of floats in [0, 1], not {kind}")
    if clips.dtype.kind == "f" and not (clips.dtype.isnative and clips.dtype.itemsize <= 8):
        clips = clips.astype(np.float64)  # other byte orders and long doubles: torch has neither
    return torch.from_numpy(np.array(clips)).to(device)  # a copy, as arrays may be read-only


def check_clips(real: Clips, fake: Clips) -> tuple[Tensor, Tensor]:
    """Convert both to tensors. Raises ValueError unless they are floats (B, 3, T, H, W) in [0, 1] of one shape."""
    real = as_tensor(real, "the real clips", fake.device if isinstance(fake, Tensor) else None)
    fake = as_tensor(fake, "the fake clips", real.device)
    check_shapes(real, fake)
    check_range(real, "the real clips")
    check_range(fake, "the fake clips")
    return real, fake


def check_range(values: Tensor, name: str) -> None:
    """Raise ValueError, naming the cause, unless all values are finite and in [0, 1], up to RANGE_SLACK."""
    low, high = (float(value) for value in torch.aminmax(values.detach()))
    if not (low > -float("inf") and high < float("inf")):  # NaN fails both comparisons
        raise ValueError(f"{name} hold NaN or infinite values")
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(
            f"{name} must lie in [0, 1] but span [{low:.4g}, {high:.4g}]: divide 0-255 pixels by 255, map [-1, 1] by "
            "(x + 1) / 2, clamp a decoder's output"
        )


def check_shapes(real: Tensor, fake: Tensor) -> None:
    """Raise ValueError unless both are non-empty floating point clips (B, 3, T, H, W) of one shape."""
    if real.shape != fake.shape:
        raise ValueError(f"real and fake clips differ in shape: {tuple(real.shape)} and {tuple(fake.shape)}")
    if real.ndim != 5 or real.shape[1] != 3 or real.numel() == 0:
        last = real.ndim == 5 and real.shape[-1] == 3
        hint = ": move the colours from the last dimension to the second" if last else ""
        raise ValueError(f"clips must have the shape (B, 3, T, H, W), nowhere 0; got {tuple(real.shape)}{hint}")
    for name, clips in (("real", real), ("fake", fake)):
        if not clips.is_floating_point():
            raise ValueError(f"the {name} clips must be floats in [0, 1], not {clips.dtype}: divide by 255 first")


def _difference(real: Clips, fake: Clips) -> Tensor:
    real, fake = check_clips(real, fake)
    return fake.float() - real.float()
