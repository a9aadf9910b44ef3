"""FID and rFID of frames: the Frechet distance of features of the Inception network of 2015.

The network, its resize to 299 x 299 and its weights are those of the package torch-fidelity (extra `fid`), which
reproduces the TensorFlow original; frames are rounded to bytes first, as they would be in an image file. The features
are the 2048 values behind the last pooling, the covariance divides by N - 1. Values depend on N (see
evatok.metrics.fvd_extrapolation), and with fewer than 2048 frames heavily so.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.

Shape letters: B clips, T frames, N frames of all clips, H x W pixels.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from evatok import weights
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.pixels import Clips, as_tensor, check_range
from evatok.weights import WeightsError


def fid(
    real: Clips,
    fake: Clips,
    batch: int = 32,
    device: str | torch.device = "cpu",
    network: InceptionFeatures | None = None,
) -> float:
    """The FID of two sets of images (N, 3, H, W) in [0, 1], or of all frames of clips (B, 3, T, H, W); 0 or more.

    The sets may differ in number. Raises as `inception_features`, and ValueError for a set of fewer than 2 images.
    """
    frames = _frames(real, "real"), _frames(fake, "fake")  # both are checked before either is run
    network = network or load_inception(device)
    of_real, of_fake = (inception_features(images, batch, network=network) for images in frames)
    return frechet_distance_of_features(of_real, of_fake, ddof=1)


def inception_features(
    images: Clips,
    batch: int = 32,
    device: str | torch.device = "cpu",
    network: InceptionFeatures | None = None,
) -> Tensor:
    """Images (N, 3, H, W) in [0, 1], or all frames of clips (B, 3, T, H, W), to features (N, 2048) float32, on the CPU.

    Args:
        batch: images that pass the network at once; it moves no value beyond rounding.
        device: where the network is loaded to; a `network` that is given runs where it is.

    Raises ValueError for other shapes, types and ranges and for NaN; WeightsError as `load_inception`.
    """
    frames = _frames(images, "given")
    if batch < 1:
        raise ValueError(f"a batch holds at least one image, got {batch}")
    network = network or load_inception(device)
    return torch.cat([network(part).cpu() for part in frames.split(batch)])


class InceptionFeatures(nn.Module):
    """Frames in [0, 1] to the features FID compares; nothing in it trains.

    `network` is a `torch_fidelity.FeatureExtractorInceptionV3` that returns the features "2048". `weights_sha256`
    names the file it was read from, for the record of a measurement.
    """

    name = "inception-2015-pool3"

    def __init__(self, network: nn.Module, *, weights_sha256: dict[str, str] | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.weights_sha256 = weights_sha256 or {}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Frames (N, 3, H, W) or clips (B, 3, T, H, W) to (N, 2048) float32. Raises ValueError as `fid`."""
        device = next(self.network.parameters()).device
        frames = (255 * _frames(images, "given").float()).round().clamp(0, 255).to(device, torch.uint8)
        with torch.autocast(device.type, enabled=False):
            return self.network(frames)[0]


def load_inception(device: str | torch.device = "cpu") -> InceptionFeatures:
    """The published network on `device`, its weights downloaded on first use into `hub/checkpoints` of TORCH_HOME.

    Raises WeightsError where torch-fidelity is not installed, the weights cannot be had, or the file is another.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise WeightsError(f"FID needs the package torch-fidelity ({error}): pip install 'evatok[fid]'") from error
    # torch-fidelity unpickles what it is given, so it is given what was just written here: the file's tensors alone.
    plain = io.BytesIO()
    torch.save(weights.tensors(weights.inception()), plain)
    plain.seek(0)
    network = FeatureExtractorInceptionV3(InceptionFeatures.name, ["2048"], feature_extractor_weights_path=plain)
    sha256 = {weights.INCEPTION: weights.PUBLISHED[weights.INCEPTION]}
    return InceptionFeatures(network, weights_sha256=sha256).to(device)


def _frames(images: Clips, name: str) -> Tensor:
    """Images, or clips as a row of all their frames, as a tensor (N, 3, H, W), checked."""
    images = as_tensor(images, f"the {name} images")
    frames = images.transpose(1, 2).flatten(0, 1) if images.ndim == 5 else images
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.numel() == 0:
        raise ValueError(
            f"the {name} images must have the shape (N, 3, H, W) or (B, 3, T, H, W), nowhere 0; "
            f"got {tuple(images.shape)}"
        )
    if not frames.is_floating_point():
        raise ValueError(f"the {name} images must be floats in [0, 1], not {frames.dtype}: divide by 255 first")
    check_range(frames, f"the {name} images")
    return frames
