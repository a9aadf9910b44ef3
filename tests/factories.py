"""Tiny models, checkpoints, clips and records, always the same: what tests make when what matters is around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evatok.assignments.reward import Scale
from evatok.data.embedded.scene_text import vocabulary
from evatok.experiments.tracking import Experiment
from evatok.generation.conditions import condition_length
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import Generator, GeneratorConfig
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.models.efficientnet import EfficientNetLite0
from evatok.models.latents import PatchPCA
from evatok.routing.networks import RouterConfig, build_router
from evatok.routing.trained_router import OperatingPoint
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTok, VideoFlexTokConfig
from evatok.training import loop
from evatok.vtok.image_encoder import ImageEncoder, ImageEncoderConfig
from evatok.vtok.language_model import LanguageModelConfig, VideoLanguageModel
from evatok.vtok.strategies import Strategy

POINT = OperatingPoint("l1", 1.2, Scale(0.0, 1.0, 12.0, 4.0))
"""The operating point of every router here."""

TINY = TokenizerConfig(
    levels=(2, 4, 8),
    frames=12,
    size=16,
    patch=(4, 8, 8),
    encoder_width=16,
    encoder_layers=2,
    encoder_heads=2,
    decoder_width=24,
    decoder_layers=2,
    decoder_heads=2,
    quantiser="fsq",
    codebook_size=240,
)
"""3 blocks of 2 x 2 patches, 3 levels: 27 candidates."""

TINY_IMAGE = replace(
    TINY,
    levels=(2, 4, 6, 8),
    frames=1,
    patch=(1, 8, 8),
    front="cnn",
    channels=8,
    multipliers=(1, 1, 2, 2),
    convolution_blocks=1,
    map_channels=8,
)
"""Images as clips of one frame and one block, convolutions around the Q-Former: 4 candidates."""

SMALLER = replace(
    TOKENIZER_SIZES["toy"],
    levels=(2, 4, 8),
    encoder_width=20,
    encoder_layers=1,
    encoder_heads=2,
    decoder_width=20,
    decoder_layers=1,
    decoder_heads=2,
    codebook_size=240,
)
"""The toy's clips and blocks with a smaller network and fewer levels: 81 candidates instead of 625."""

TINY_FLEX = VideoFlexTokConfig(
    frames=12,
    size=32,
    codec="patch-pca",
    patch=2,
    registers=4,
    form="flexible",
    drop="truncate",
    pooled=True,
    codebook_size=240,
    encoder_width=16,
    encoder_layers=2,
    encoder_heads=2,
    decoder_width=16,
    decoder_layers=2,
    decoder_heads=2,
    alignment_layer=1,
)
"""3 latent frames of 2 x 2 patches, 4 registers per frame."""


ENVIRONMENT = {
    **dict.fromkeys(records.ENVIRONMENT_KEYS, None),
    "argv": [],
    "versions": {},
    "device": "CPU",
    "threads": 2,
    "wall_seconds": 3600.0,
}
"""The environment of made-up records."""


FOUR_STEPS = {
    **{"train_clips": 10, "validation_clips": 3, "steps": 4, "batch": 4, "warmup": 1},
    **{"log_every": 1, "save_every": 2, "threads": 1},
}
"""Settings of a training of four steps that is saved at the second."""

TINY_VIDEOMAE = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
"""8 x 2 x 2 tokens of 16 x 16 x 16 clips."""

ONE_LAYER = {"width": 32, "layers": 1, "heads": 2}
"""The network of a small generator."""


def places(folder: Path, checkpoint: str = "model.safetensors") -> dict[str, str]:
    """Settings with which a training writes only to a folder."""
    return {
        "work": str(folder / "work"),
        "checkpoint": str(folder / checkpoint),
        "records_folder": str(folder / "records"),
    }


def gratings(count: int, frames: int = 16, size: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3): coloured gratings that drift at their own speed, plus noise."""
    random = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(size), np.arange(size), indexing="ij")
    clips = []
    for _ in range(count):
        waves, speed, phase = random.uniform(0.05, 0.6, (2, 3)), random.uniform(-1, 1, 3), random.uniform(0, 6, 3)
        angle = x[..., None] * waves[0] + y[..., None] * waves[1] + t[..., None] * speed + phase
        clips.append(127 + 90 * np.sin(angle) + random.normal(0, 8, angle.shape))
    return np.clip(np.stack(clips), 0, 255).astype(np.uint8)


def configured(experiment: Experiment, *named: str, **updates: object) -> dict[str, Any]:
    """The configuration with which an experiment would start."""
    run = experiment._create_run("print_config", updates, named, options={"--unobserved": True})
    return {key: value for key, value in run.config.items() if key != "__doc__"}


def record_of(tmp_path: Path, run: Any, name: str = "one") -> records.Record:
    """The record that the run of an experiment left in its folder `name`."""
    return records.read(tmp_path / name / "records" / f"{run.result['record']}.json")


def curve_of(tmp_path: Path, name: str = "one") -> list[dict[str, float]]:
    """The lines that a training in the folder `name` has logged."""
    return loop.read_curve(tmp_path / name / "work")


class TinyEncoder(nn.Module):
    """A frozen encoder's interface on an untrained network, always the same one."""

    width, depth, source = 12, 3, "tiny"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Conv3d(3, self.width, (2, 4, 4), stride=(2, 4, 4))
            self.layers = nn.ModuleList(nn.Linear(self.width, self.width) for _ in range(self.depth))
        self.weights_sha256 = f"{seed:064x}"

    def width_of(self, layer: int) -> int:
        return self.width

    def grid(self, frames: int, size: int) -> tuple[int, int, int]:
        return frames // 2, size // 4, size // 4

    def forward(self, clips: torch.Tensor, layers: Sequence[int]) -> list[torch.Tensor]:
        made = [self.embedding(clips).movedim(1, -1)]
        for layer in self.layers:
            made.append(made[-1] + layer(made[-1]).tanh())
        return [made[layer] for layer in layers]


def published_efficientnet() -> dict[str, torch.Tensor]:
    """Random tensors of EfficientNet-Lite0 as they are published, through which its deepest maps depend on pictures.

    Convolutions without bias, each with the batch norm after it; always the same ones.
    """
    drawn = torch.Generator().manual_seed(1)
    state = {"_fc.weight": torch.randn(1000, 1280, generator=drawn) / 36, "_fc.bias": torch.zeros(1000)}
    for convolution, name, norm in EfficientNetLite0()._published_names():
        shape, width = convolution.weight.shape, len(convolution.weight)
        state[f"{name}.weight"] = torch.randn(shape, generator=drawn) * 2 / shape[1:].numel() ** 0.5
        for part in ("running_mean", "bias"):
            state[f"{norm}.{part}"] = torch.randn(width, generator=drawn) / 4
        for part in ("running_var", "weight"):
            state[f"{norm}.{part}"] = torch.rand(width, generator=drawn) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)
    return state


def noise(count: int = 4, seed: int = 0, *, frames: int = 4, size: int = 16) -> torch.Tensor:
    """Clips of noise (count, 3, frames, size, size) in [0, 1]."""
    return torch.rand(count, 3, frames, size, size, generator=torch.Generator().manual_seed(seed))


def smooth_clips(count: int = 2, frames: int = 3, size: int = 32) -> torch.Tensor:
    """Low-frequency pictures, on which noise is a distortion as it is on real ones."""
    return F.interpolate(noise(count, frames=frames, size=5), size=(frames, size, size), mode="trilinear")


def noisy(real: torch.Tensor, amount: float, seed: int = 1) -> torch.Tensor:
    """Clips with Gaussian noise, clamped to [0, 1]."""
    added = torch.randn(real.shape, generator=torch.Generator().manual_seed(seed))
    return (real + amount * added).clamp(0, 1)


def grey_video(path: Path, frames: int = 20, grey: int = 128, size: int = 32, brighter: int = 0) -> Path:
    """Write a video at 20 frames per second, of one grey value or with each frame that much brighter."""
    values = grey + brighter * np.arange(frames, dtype=np.uint8)
    return written_video(path, np.broadcast_to(values[:, None, None, None], (frames, size, size, 3)))


def moving_video(path: Path, frames: int = 20, size: int = 64, seed: int = 0) -> Path:
    """Write a video of a moving grating at 20 frames per second."""
    return written_video(path, gratings(1, frames, size, seed)[0])


def written_video(path: Path, pictures_THWC: np.ndarray, rate: int = 20) -> Path:
    """Write uint8 pictures as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(pictures_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _saved(path: Path | str, module: nn.Module, kind: str, config: dict[str, Any], **header: Any) -> str:
    checkpoints.save(path, module, kind=kind, config=config, **header)
    return str(path)


def saved_tokenizer(path: Path, tokenizer: AdaptiveTokenizer | TokenizerConfig, *, seed: int = 0, **facts: Any) -> str:
    """The path of a tokenizer's checkpoint; of a configuration, an untrained one is drawn with `seed`."""
    if isinstance(tokenizer, TokenizerConfig):
        torch.manual_seed(seed)
        tokenizer = AdaptiveTokenizer(tokenizer)
    return _saved(path, tokenizer, "tokenizer", tokenizer.config.to_dict(), facts=facts)


def saved_router(
    path: Path,
    levels: Sequence[int] = (2, 4, 8),
    *,
    frames: int = 16,
    size: int = 64,
    patch: tuple[int, int, int] = (4, 16, 16),
    point: OperatingPoint = POINT,
    **shape: Any,
) -> str:
    """The path of an untrained router's checkpoint; by default an MLP on features of the toy's clips."""
    torch.manual_seed(0)
    config = RouterConfig(**{"kind": "features", **shape}, levels=tuple(levels), frames=frames, size=size, patch=patch)
    return _saved(path, build_router(config), "router", config.to_dict(), facts={"point": asdict(point)})


def small_generator(grammar: Grammar, **shape: Any) -> Generator:
    """An untrained generator of one layer, frozen."""
    torch.manual_seed(0)
    config = GeneratorConfig.of(grammar, "toy", width=16, layers=1, heads=2, **shape)
    return Generator(config).eval().requires_grad_(False)


def saved_generator(
    path: Path, tokenizer: Path | str, classes: Sequence[str] = (), prefix: tuple[int, ...] = (), **facts: Any
) -> str:
    """The path of an untrained generator's checkpoint, of classes or, without them, continuing given frames."""
    parent = checkpoints.load(tokenizer, "tokenizer")
    grammar = Grammar.of(TokenizerConfig.from_dict(parent.config))
    module = small_generator(grammar, classes=len(classes), condition=condition_length(prefix))
    told = {"task": "class" if classes else "frames", "classes": list(classes), "prefix": list(prefix), **facts}
    parents = {"tokenizer": parent.sha256}
    return _saved(path, module, "generator", module.config.to_dict(), parents=parents, facts=told)


def saved_classifier(path: Path, classes: Sequence[str], frames: int, size: int, label: str = "motion") -> str:
    """The path of an untrained classifier's checkpoint."""
    torch.manual_seed(0)
    shape = ClassifierConfig(len(classes), frames, size, width=8)
    facts = {"classes": list(classes), "label": label}
    return _saved(path, ClipClassifier(shape), "classifier", shape.to_dict(), facts=facts)


def saved_image_encoder(path: Path) -> str:
    """The path of an untrained image encoder's checkpoint."""
    torch.manual_seed(0)
    shape = ImageEncoderConfig(size=16, width=8, channels=8)
    return _saved(path, ImageEncoder(shape), "image_encoder", shape.to_dict())


def saved_language_model(path: Path) -> str:
    """The path of an untrained video language model's checkpoint."""
    torch.manual_seed(0)
    shape, strategy = LanguageModelConfig(channels=8, width=16, layers=1, heads=2), Strategy("key")
    config = {"model": shape.to_dict(), "strategy": strategy.to_dict()}
    module = VideoLanguageModel(shape, strategy)
    return _saved(path, module, "video_language_model", config, facts={"vocabulary": list(vocabulary())})


def saved_videoflextok(path: Path, facts: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """The path of the checkpoint of an untrained VideoFlexTok on latents of its own codec, TINY_FLEX with `changes`."""
    torch.manual_seed(0)
    codec = PatchPCA()
    tokenizer = VideoFlexTok(codec, FlexNetwork(replace(TINY_FLEX, codec_sha256=codec.identity(), **changes)))
    return _saved(path, tokenizer, "videoflextok", tokenizer.config.to_dict(), facts=facts)
