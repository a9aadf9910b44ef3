"""The shape of a VideoFlexTok tokenizer, and its sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evatok.errors import EvatokError
from evatok.models.latents.codec import is_causal, latent_frames
from evatok.storage import checkpoints

FORMS = ("time-causal", "flexible", "flat", "grid")
"""How the encoder arranges tokens.

time-causal: K registers per latent frame, after the frame's patches; a register sees all that is earlier (Sec. 3.1).
flexible: the same, but across frames a register sees only registers of its own rank and below, and patches see no
    registers: the first k codes of every frame follow from k registers, and cost less than K.
flat: T * K registers after all patches, under full attention; one order over all of them (Table 2's control).
grid: no registers: patches themselves are quantised, K = P, and there is no order (Appendix D's control).
"""

DECODER_MASKS = ("causal", "full")
DROPS = ("truncate", "mask")
"""What replaces a dropped token in the decoder: nothing, or a learned mask token (the paper's)."""


class FlexTokError(EvatokError, ValueError):
    """An invalid configuration, or clips, lengths or codes that do not fit the tokenizer."""


@dataclass(frozen=True)
class VideoFlexTokConfig:
    """Shape of a tokenizer; the defaults are the paper's d18-d18 for Kinetics-600 at 128 pixels (Sec. 4.1).

    Attributes:
        frames, size: of a clip; 4T frames, or 4T - 3 with a causal first frame.
        codec: kind of the latent codec, whose identity is `codec_sha256`.
        patch: latent positions along a side of one patch.
        registers: K, the most tokens per latent frame.
        form, decoder_mask, drop: see FORMS, DECODER_MASKS and DROPS.
        pooled: registers start from pooled patch embeddings instead of from learned vectors alone (ours).
        alignment_layer: decoder layer that is aligned with a frozen encoder, counted from 1.
    """

    frames: int = 17
    size: int = 128
    codec: str = "vidtok"
    codec_sha256: str = ""
    channels: int = 16
    stride: tuple[int, int, int] = (4, 8, 8)
    patch: int = 1
    registers: int = 256
    form: str = "time-causal"
    decoder_mask: str = "causal"
    drop: str = "mask"
    pooled: bool = False
    codebook_size: int = 64000
    encoder_width: int = 1152
    encoder_layers: int = 18
    encoder_heads: int = 18
    decoder_width: int = 1152
    decoder_layers: int = 18
    decoder_heads: int = 18
    alignment_layer: int = 1

    def __post_init__(self) -> None:
        for key, value, known in (
            ("form", self.form, FORMS),
            ("decoder_mask", self.decoder_mask, DECODER_MASKS),
            ("drop", self.drop, DROPS),
        ):
            if value not in known:
                raise FlexTokError(f"{key} {value!r} is not one of {', '.join(known)}")
        latent_frames(self.frames, self.stride[0])
        side = self.stride[1] * self.patch
        if self.size % side:
            raise FlexTokError(f"clips of {self.size} pixels: the side must be a multiple of {side}")
        if self.form == "grid" and self.registers != self.patches:
            raise FlexTokError(
                f"a grid has one token per patch: registers must be {self.patches}, got {self.registers}"
            )
        if not 1 <= self.alignment_layer <= self.decoder_layers:
            raise FlexTokError(
                f"alignment_layer must be between 1 and {self.decoder_layers}, got {self.alignment_layer}"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VideoFlexTokConfig:
        """Build from JSON, in which tuples are lists."""
        return checkpoints.shaped(cls, values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def blocks(self) -> int:
        """T, the number of latent frames per clip."""
        return latent_frames(self.frames, self.stride[0])

    @property
    def causal_first(self) -> bool:
        """Whether the first latent frame encodes a single frame."""
        return is_causal(self.frames, self.stride[0])

    @property
    def first_frames(self) -> int:
        """Number of frames that the first latent frame encodes."""
        return 1 if self.causal_first else self.stride[0]

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of a latent frame, (high, wide)."""
        side = self.size // (self.stride[1] * self.patch)
        return side, side

    @property
    def patches(self) -> int:
        """P, patches per latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Numbers in the latents of one patch."""
        return self.channels * self.patch**2

    @property
    def kept_levels(self) -> tuple[int, ...]:
        """Tokens per latent frame at which a tokenizer is measured: the powers of two up to K, and K."""
        if self.form == "grid":
            return (self.registers,)
        return tuple(sorted({*(2**power for power in range(self.registers.bit_length())), self.registers}))


def _of_depth(depth: int, side: str) -> dict[str, Any]:
    """depth d, width 64d, d heads (Sec. 4.1)."""
    return {f"{side}_width": 64 * depth, f"{side}_layers": depth, f"{side}_heads": depth}


VIDEOFLEXTOK_SIZES: dict[str, VideoFlexTokConfig] = {
    # CPU, minutes. Panda's rule of 2x2 latents per patch gives 16 patches per latent frame, and as many registers.
    "toy": VideoFlexTokConfig(
        frames=16,
        size=64,
        codec="patch-pca",
        patch=2,
        registers=16,
        form="flexible",
        drop="truncate",
        pooled=True,
        encoder_width=160,
        encoder_layers=3,
        encoder_heads=5,
        decoder_width=160,
        decoder_layers=4,
        decoder_heads=5,
        alignment_layer=2,
    ),
    # One GPU, hours.
    "small": VideoFlexTokConfig(
        patch=2,
        registers=64,
        form="flexible",
        drop="truncate",
        pooled=True,
        **_of_depth(6, "encoder"),
        **_of_depth(8, "decoder"),
        alignment_layer=2,
    ),
    "paper": VideoFlexTokConfig(),  # d18-d18, Kinetics-600
    "paper-d12": VideoFlexTokConfig(**_of_depth(12, "encoder"), **_of_depth(12, "decoder")),  # the ablations'
    "paper-d28": VideoFlexTokConfig(size=256, patch=2, **_of_depth(28, "decoder")),  # d18-d28, Panda
}
