"""FID and rFID of frames: the Frechet distance of features of the 2015 Inception network.

The network, its resize to 299 x 299 and its weights are those of the package torch-fidelity (extra `fid`), which
reproduces the TensorFlow original; frames are rounded to bytes first, as in an image file. The features are the 2048
values after the last pooling, and the covariance divides by N - 1. Values depend on N (see
`evatok.metrics.fvd_extrapolation`), strongly so with fewer than 2048 frames.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.

Legend: B clips, T frames, N frames of all clips, H x W pixels.
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
    """FID of two sets of images (N, 3, H, W) in [0, 1], or of all frames of clips (B, 3, T, H, W); 0 or more.

    The sets may differ in size. Raises as `inception_features`, and ValueError for a set of fewer than 2 images.
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
    """Features (N, 2048) float32, on the CPU, of images (N, 3, H, W) or all frames of clips (B, 3, T, H, W) in [0, 1].

    Args:
        batch: images per forward pass; changes values only by rounding.
        device: of the loaded network; a given `network` runs where it is.

    Raises ValueError for other shapes, types and ranges and for NaN; WeightsError as `load_inception`.
    """
    frames = _frames(images, "given")
    if batch < 1:
        raise ValueError(f"a batch needs at least one image, got {batch}")
    network = network or load_inception(device)
    return torch.cat([network(part).cpu() for part in frames.split(batch)])


class InceptionFeatures(nn.Module):
    """Map frames in [0, 1] to the features that FID compares; frozen.

    `network` is a `torch_fidelity.FeatureExtractorInceptionV3` that returns the features "2048". `weights_sha256`
    names the file it was read from, for records.
    """

    name = "inception-2015-pool3"

    def __init__(self, network: nn.Module, *, weights_sha256: dict[str, str] | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.weights_sha256 = weights_sha256 or {}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (N, 2048) float32 of frames (N, 3, H, W) or clips (B, 3, T, H, W). Raises ValueError, see `fid`."""
        device = next(self.network.parameters()).device
        frames = (255 * _frames(images, "given").float()).round().clamp(0, 255).to(device, torch.uint8)
        with torch.autocast(device.type, enabled=False):
            return self.network(frames)[0]


def load_inception(device: str | torch.device = "cpu") -> InceptionFeatures:
    """Load the published network; its weights are downloaded on first use into `hub/checkpoints` of TORCH_HOME.

    Raises WeightsError if torch-fidelity is not installed, or the weights are unavailable or not the published ones.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise WeightsError(f"FID needs the package torch-fidelity ({error}): pip install 'evatok[fid]'") from error
    # torch-fidelity unpickles its input, so it gets a file that was just written here and contains only tensors.
    plain = io.BytesIO()
    torch.save(weights.tensors(weights.inception()), plain)
    plain.seek(0)
    network = FeatureExtractorInceptionV3(InceptionFeatures.name, ["2048"], feature_extractor_weights_path=plain)
    sha256 = {weights.INCEPTION: weights.PUBLISHED[weights.INCEPTION]}
    return InceptionFeatures(network, weights_sha256=sha256).to(device)


def _frames(images: Clips, name: str) -> Tensor:
    """Check images, or clips (as all their frames), and convert them to a tensor (N, 3, H, W)."""
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
