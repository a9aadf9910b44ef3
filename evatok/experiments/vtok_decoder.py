"""Train the video decoder of VTok's generation once, on true tokens of all strategies and on captions; then freeze it.

It plays HunyuanVideo's role. Each step draws one strategy and, for each clip, whether the decoder sees the caption, the
tokens, both or neither; so one network serves every row, and "no visual tokens" is the same network with the caption
alone. The tokens' coder is trained with it. The ruler measures clips decoded from true tokens without a caption: the
upper bound of a model that writes perfect tokens. Rerun the command to resume a killed run.

    python -m evatok.experiments.vtok_decoder with toy    CPU, hours; needs train_image_encoder
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from evatok.alignment import triples
from evatok.data.clips import ClipSet, from_network, to_network
from evatok.data.embedded.scene_ruler import Ruler
from evatok.data.embedded.scene_text import vocabulary
from evatok.data.sets import clip_set
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.setting import TRAINING
from evatok.experiments.tracking import ConfigError
from evatok.models.latents import PatchPCA
from evatok.storage import checkpoints
from evatok.storage.shards import ranges
from evatok.tokenizers.videoflextok.flow_matching import NoiseLevels, flow_loss, noised, target
from evatok.training import loop
from evatok.training.losses import entropy
from evatok.vtok import captions
from evatok.vtok.features import Features, features_of
from evatok.vtok.image_encoder import ImageEncoder
from evatok.vtok.scoring import Outcomes
from evatok.vtok.strategies import Strategy
from evatok.vtok.token_codes import DIMENSION, GROUPS, SPATIAL, Coded, motion_kind
from evatok.vtok.tokens import RawTokens, VideoTokens
from evatok.vtok.video_decoder import VideoDecoder, VideoDecoderConfig

ex = tracking.experiment("vtok_decoder", __doc__, vtok_training.SHARED)

DATA = "moving-shapes"
FRAMES = 31
VTOK = Strategy("vtok")
STRATEGIES = (
    VTOK,
    *(Strategy("vtok", key=key) for key in (1, 4, 9, 25)),
    Strategy("vtok", fps=3),
    Strategy("frames", frames=4),
    Strategy("frames", frames=8),
    Strategy("lavit"),
    Strategy("omni"),
    Strategy("key"),
)
"""Strategies whose tokens are used in training, equally often."""


@ex.config
def config() -> None:
    encoder = "results/checkpoints/vtok-image-encoder-toy.safetensors"
    train_clips = 4000
    validation_clips = 70
    latent_clips = 256
    latents_kept = 64
    width = 128
    layers = 6
    heads = 4
    coder_weight = 1.0
    entropy_weight = 0.05
    null = 0.1  # share of clips with neither caption nor tokens (HunyuanVideo: not stated)
    captions_only = 0.25
    tokens_only = 0.35
    noise_mean = 0.5
    steps = 5000
    batch = 32
    learning_rate = 1e-3
    measured_steps = [20]
    noise_seed = 0
    work = "results/work/vtok/decoder"
    checkpoint = "results/work/vtok/decoder/decoder.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, DecoderTask)


class DecoderTask(runner.Task[VideoDecoder]):
    """A decoder trained to generate clips from tokens and captions."""

    kind = "vtok_decoder"
    steps_may_change = True

    def __init__(self, config: dict[str, Any]) -> None:
        _check_shares(config)
        self.config = config
        encoder = ImageEncoder.load(config["encoder"], config["device"])
        train = clips_of(config, "train")
        self.validation = clips_of(config, "validation")
        self.encoder = encoder
        self.parents = {"image_encoder": encoder.checkpoint.sha256, "train_clips": train.sha256}
        self.inputs = " ".join(self.parents.values())
        self.module = new_decoder(config, train, encoder)
        features = features_of(encoder, train, device=config["device"])
        self.objective = Objective(train, features, latents_of(self.module, train, config["device"]), config)

    def ship(self, averaged: VideoDecoder, path: Path, changes: dict[str, Any]) -> None:
        told = {name: self.config[name] for name in ("size", "steps")}
        checkpoints.save(
            path,
            averaged,
            kind=VideoDecoder.KIND,
            config=averaged.config.to_dict(),
            parents=self.parents,
            facts={"vocabulary": list(vocabulary()), **told, **changes},
        )

    def measure(self, averaged: VideoDecoder, path: Path, folder: Path) -> runner.Measured:
        decoder, clips = VideoDecoder.load(path, self.config["device"]), self.validation
        features = features_of(self.encoder, clips, device=self.config["device"])
        asked = triples.questions_of(clips.labels)
        drawn = from_true_tokens(decoder, features, VTOK, self.config)
        given = Ruler().answers(drawn, [[question.text for question in questions] for questions in asked])
        metrics = Outcomes(*triples.scored(asked, given)).metrics()
        return runner.Measured(
            protocol={"data": DATA, "split": "validation", "manifest": clips.manifest, "tokens": VTOK.name},
            model={
                "sha256": decoder.checkpoint.sha256,
                "parents": self.parents,
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics=metrics,
            told={name: round(metric.value, 1) for name, metric in metrics.items()},
        )


class Objective:
    """The loss of one step: clips, the tokens of a strategy, and which conditions are shown.

    Args:
        latents: (N, T P, V) of the clips, float16.
    """

    def __init__(self, clips: ClipSet, features: Features, latents: torch.Tensor, config: dict[str, Any]) -> None:
        self.clips, self.features, self.latents, self.config = clips, features, latents, config
        self.captions = torch.from_numpy(captions.numbers(clips.labels["caption"].astype(str)))
        self.levels = NoiseLevels(config["noise_mean"])
        self.readers = [reader(strategy, features) for strategy in STRATEGIES]

    def __call__(self, module: VideoDecoder, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        config = self.config
        rows = loop.batch_indices(len(self.clips), config["batch"], step, config["seed"])
        read = self.readers[int(torch.randint(len(self.readers), (), generator=generator))]
        raw = read.raw(self.features.take(rows, config["device"]))
        back, terms = coded(module, raw, read.strategy)
        kept = _shown(len(rows), config, generator)
        shown = module.conditions(self.captions[rows].to(config["device"]), back, read.strategy, kept)
        x = self.latents[rows].to(config["device"]).float()
        noise = torch.randn(x.shape, generator=generator).to(x)
        sigma = self.levels.draw(len(x), generator).to(x)
        terms["flow"] = flow_loss(module.velocity(noised(x, noise, sigma), sigma, shown), target(x, noise))
        coder = terms["raw"] + terms["codes"] + config["entropy_weight"] * terms["entropy"]
        return terms["flow"] + config["coder_weight"] * coder, terms


def coded(module: VideoDecoder, raw: RawTokens, strategy: Strategy) -> tuple[RawTokens, loop.Terms]:
    """Return tokens after quantisation, and the coder's terms: the tokens' loss, the codebooks', their usage."""
    coder, parts = module.coder, module.coder.coded(raw, strategy)
    values = [part.values.unflatten(0, (len(raw.spatial), -1)) for part in parts]
    back = coder.raw(torch.cat(values, 1), strategy, raw.frames)
    pairs = [(back.spatial, raw.spatial, parts[0], SPATIAL)]
    if raw.motion.shape[1]:
        pairs.append((back.motion, raw.motion, parts[1], motion_kind(strategy)))
    lost = [F.mse_loss(ours, true) / true.var().clamp_min(1e-6) for ours, true, _, _ in pairs]
    use = [_use(module, part, kind) for _, _, part, kind in pairs]
    losses = [part.loss for _, _, part, _ in pairs]
    mean = {"raw": lost, "codes": losses, "entropy": use}
    return back, {name: torch.stack(values).mean() for name, values in mean.items()}


@torch.no_grad()
def latents_of(decoder: VideoDecoder, clips: ClipSet, device: str, at_once: int = 50) -> torch.Tensor:
    """Return (N, T P, V) latents of clips in float16: the codec is fitted before training and then fixed."""
    parts = []
    with tqdm(total=len(clips), desc="latents", unit="clip", disable=None) as bar:
        for start, stop in ranges(len(clips), at_once):
            piece = np.array(clips.clips[start:stop])
            parts.append(decoder.encode(to_network(piece, device)).half().cpu())
            bar.update(len(piece))
    return torch.cat(parts)


def reader(strategy: Strategy, features: Features) -> VideoTokens:
    """Build what turns features into raw tokens; its projectors are unused."""
    return VideoTokens(strategy, features.first.shape[-1], 8, cell_by_cell=True)


@torch.no_grad()
def from_true_tokens(
    decoder: VideoDecoder, features: Features, strategy: Strategy, config: dict[str, Any], at_once: int = 35
) -> np.ndarray:
    """Decode uint8 (N, F, H, W, 3) from the codes of real clips' tokens, without captions."""
    read, parts = reader(strategy, features), []
    for span in ranges(len(features), at_once):
        rows = np.arange(*span)
        back, _ = coded(decoder, read.raw(features.take(rows, config["device"])), strategy)
        unsaid = torch.zeros(len(rows), 1, dtype=torch.int64, device=config["device"])
        how = {"steps": config["measured_steps"][-1], "seed": config["noise_seed"]}
        parts.append(from_network(decoder.sample(unsaid, back, strategy, indices=rows, text=False, **how)))
    return np.concatenate(parts)


def new_decoder(config: dict[str, Any], train: ClipSet, encoder: ImageEncoder) -> VideoDecoder:
    """Build an untrained decoder whose latents are fitted to training clips."""
    torch.manual_seed(config["seed"])
    shape = VideoDecoderConfig(
        frames=FRAMES,
        size=encoder.config.size,
        channels=encoder.config.width,
        latents=config["latents_kept"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
    )
    decoder = VideoDecoder(shape)
    fitted = np.array(train.clips[: config["latent_clips"]])
    repeated = [fitted, np.repeat(fitted[:, -1:], shape.padded - FRAMES, axis=1)]
    decoder.codec = PatchPCA.fit(np.concatenate(repeated, axis=1), config["latents_kept"])
    return decoder.to(config["device"])


def _check_shares(config: dict[str, Any]) -> None:
    """Raise ConfigError if no share of clips is left that shows caption and tokens."""
    names = ("null", "captions_only", "tokens_only")
    total = sum(config[name] for name in names)
    if total >= 1:
        raise ConfigError(
            f"config keys {', '.join(names)}: they add up to {total:g}; the rest, below 1, shows caption and tokens"
        )


def _shown(count: int, config: dict[str, Any], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw (B,) whose caption is shown and (B,) whose tokens are."""
    draw = torch.rand(count, generator=generator).to(config["device"])
    empty, said = config["null"], config["null"] + config["captions_only"]
    alone = said + config["tokens_only"]
    return (draw >= empty) & ((draw < said) | (draw >= alone)), draw >= said


def _use(module: VideoDecoder, part: Coded, kind: str) -> torch.Tensor:
    """Return how evenly the codebooks of a kind are used (`evatok.training.losses.entropy`)."""
    books, groups = module.coder.of(kind).codebooks(), part.latents.split(DIMENSION, -1)
    each = [entropy(group, book.unit()) for group, book in zip(groups, books, strict=True)]
    return torch.stack(each).sum() / GROUPS


def clips_of(config: dict[str, Any], split: str) -> ClipSet:
    """Load clips of a split in the decoder's shape."""
    return clip_set(DATA, split, config[f"{split}_clips"], size=64, frames=FRAMES)


if __name__ == "__main__":
    tracking.command_line(ex)
