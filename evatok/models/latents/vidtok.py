"""VidTok's KL video autoencoder (arXiv 2412.13061), in whose latents VideoFlexTok was trained: 4x8x8, 16 channels.

The network is diffusers' `AutoencoderVidTok`, an optional dependency. Its architecture is that of the weights of
version 1.1: weights of version 1.0 load into it without complaint and give other latents, so a folder has to say which
it holds.

Legend: B clips, F frames, T latent frames of h x w positions, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from einops import rearrange

from evatok.models.latents.codec import LatentCodec, LatentError, is_causal, weights_sha256
from evatok.storage.files import ordinary

VERSION = "1.1"
_SOURCE = "evatok.json"
_NEEDS = "VidTok latents need diffusers: pip install 'diffusers>=0.40' requests"


class VidTok(LatentCodec):
    """Mean latents of a causal KL autoencoder, standardised per channel.

    The network's weights stay in the user's file: a tokenizer's checkpoint only names their hash.

    Args:
        network: diffusers' AutoencoderVidTok, causal, with the regulariser "kl".
        mean, deviation: (C,) of the latents that the tokenizer was trained on; None leaves latents as they are.
    """

    kind = "vidtok"
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, network: Any, mean: torch.Tensor | None = None, deviation: torch.Tensor | None = None, sha256: str = ""
    ) -> None:
        super().__init__()
        told = network.config
        if not told.is_causal or told.regularizer != "kl":
            raise LatentError("VidTok latents need a causal network with the regularizer 'kl'")
        self.channels = int(told.z_channels)
        self.stride = (int(network.temporal_compression_ratio), *[2 ** len(network.encoder.spatial_ds)] * 2)
        # Not a submodule, so that a tokenizer's checkpoint does not hold it.
        self._network = [network.eval().requires_grad_(False)]
        self._sha256 = sha256 or weights_sha256(network.state_dict(), {"kind": self.kind})
        self.register_buffer("mean", torch.zeros(self.channels) if mean is None else mean)
        self.register_buffer("deviation", torch.ones(self.channels) if deviation is None else deviation)

    @classmethod
    def load(cls, folder: Path | str) -> VidTok:
        """Load from a folder in diffusers' format, with a file evatok.json that says {"version": "1.1"}.

        Raises:
            ImportError: diffusers is not installed.
            LatentError: no such folder, weights of another version or that cannot be read.
        """
        folder = Path(folder)
        _check_version(folder)
        try:
            from diffusers import AutoencoderVidTok
        except ImportError as error:
            raise ImportError(_NEEDS) from error
        try:
            network = AutoencoderVidTok.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except Exception as error:  # the format's readers raise anything for a damaged folder
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LatentError(
                f"{folder}: its weights cannot be read ({reason}); fetch or convert them again"
            ) from error
        return cls(network)

    @torch.no_grad()
    def standardise(self, clips: torch.Tensor) -> VidTok:
        """Set mean and deviation to those of the latents of clips (B, 3, F, H, W) in [0, 1]; return itself."""
        self.mean.zero_()
        self.deviation.fill_(1.0)
        latents = self.encode(clips).flatten(0, 3)
        # Checkpoints store half precision.
        self.mean.copy_(latents.mean(0).half())
        self.deviation.copy_(latents.std(0).clamp_min(1e-3).half())
        return self

    def identity(self) -> str:
        return self._sha256

    def _encode(self, clips: torch.Tensor) -> torch.Tensor:
        every = self.stride[0]
        # The network's own `encode` does not pad as its `forward` does: the first frame is to fill a latent frame.
        front = clips[:, :, :1].expand(-1, -1, every - 1 if is_causal(clips.shape[2], every) else 0, -1, -1)
        posterior = self._network[0].encode(torch.cat((front, clips), dim=2).float() * 2 - 1).latent_dist
        latents = rearrange(posterior.mode(), "b c t y x -> b t y x c")
        return (latents - self.mean) / self.deviation

    def _decode(self, latents: torch.Tensor, frames: int) -> torch.Tensor:
        values = rearrange(latents.float() * self.deviation + self.mean, "b t y x c -> b c t y x")
        network = self._network[0]
        # `decode` drops the padding of a causal first frame; clips of 4T frames have none.
        causal = is_causal(frames, self.stride[0])
        return (network.decode(values) if causal else network._decode(values)) / 2 + 0.5

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Self:
        self._network[0]._apply(fn)
        return super()._apply(fn, recurse)


def _check_version(folder: Path) -> None:
    try:
        told = json.loads(ordinary(folder / _SOURCE).read_text())
    except FileNotFoundError as error:
        raise LatentError(
            f"{folder}: no {_SOURCE}; put VidTok's causal KL weights of version {VERSION} there in diffusers' format, "
            f'and {_SOURCE} with {{"version": "{VERSION}"}}'
        ) from error
    except (OSError, ValueError) as error:
        raise LatentError(f"{folder / _SOURCE} is not JSON ({type(error).__name__})") from error
    version = told.get("version") if isinstance(told, dict) else None
    if version != VERSION:
        raise LatentError(
            f"{folder}: VidTok weights of version {version!r}; only {VERSION} has this architecture (1.0 would load "
            "and give other latents): fetch vidtok_v1_1"
        )
