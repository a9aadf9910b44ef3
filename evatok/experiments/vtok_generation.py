"""Train VTok's language model to write visual tokens for a caption (Eqs. 8 to 10), one strategy per run.

It starts from the model of stage B and reads tokens quantised by the frozen decoder's coder, so that it reads what it
writes. `token_head=codes` is the default; `flow` and `mse` are other interpretations of the paper, whose tokens are
continuous and have no likelihood. `understanding_weight` trains both branches jointly, as the paper does. Measured on
test clips in bits per code. Rerun the command to resume a killed run.

    python -m evatok.experiments.vtok_generation with toy                                   needs vtok_decoder
    python -m evatok.experiments.vtok_generation with toy strategy=frames frames_sampled=8 start=PATH
    python -m evatok.experiments.vtok_generation with toy token_head=flow
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet
from evatok.data.embedded.scene_text import vocabulary
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.setting import TRAINING
from evatok.experiments.tracking import ConfigError
from evatok.experiments.vtok_decoder import DATA, FRAMES, clips_of, reader
from evatok.metrics import catalogue
from evatok.storage import checkpoints, records
from evatok.storage.shards import ranges
from evatok.training import loop
from evatok.vtok import captions, lessons
from evatok.vtok.features import features_of
from evatok.vtok.image_encoder import ImageEncoder
from evatok.vtok.language_model import LanguageModelConfig, VideoLanguageModel
from evatok.vtok.lessons import Lessons
from evatok.vtok.strategies import Strategy, StrategyError
from evatok.vtok.token_codes import GROUPS, TokenCodeError, motion_kind
from evatok.vtok.token_heads import Tokens
from evatok.vtok.tokens import VideoTokens
from evatok.vtok.video_decoder import VideoDecoder
from evatok.vtok.writer import VideoWriter

ex = tracking.experiment("vtok_generation", __doc__, vtok_training.WRITER)


WRITTEN_ALIKE = (
    *("train_clips", "batch", "learning_rate", "final_learning_rate", "warmup", "ema"),
    *("width", "layers", "heads", "understanding_weight"),
)
"""Configuration that writers of one table share, besides the steps; stored in their checkpoints."""


@ex.config
def config() -> None:
    strategy = "vtok"
    key = 16
    fps = 6
    frames_sampled = 4
    token_head = "codes"
    understanding_weight = 0.0  # paper: 1
    decoder = "results/work/vtok/decoder/decoder.safetensors"
    start = "results/work/vtok/models/vtok-0.safetensors"
    train_clips = 4000
    test_clips = 200
    steps = 3000
    learning_rate = 1.5e-3
    work = "results/work/vtok/generation"
    checkpoint = "results/work/vtok/generation/writer.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, TRAINING)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, WriterTask)


class WriterTask(runner.Task[VideoWriter]):
    """A language model trained to write the tokens of one strategy."""

    kind = "vtok_generation"

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        strategy = written_strategy(config)
        encoder, self.decoder = parts(config)
        torch.manual_seed(config["seed"])
        shape = LanguageModelConfig(encoder.config.width, config["width"], config["layers"], config["heads"])
        self.module = VideoWriter(shape, strategy, config["token_head"]).to(config["device"])
        sets = (clips_of(config, "train"), clips_of(config, "test"))
        self.train_set, self.test_set = (Pairs(clips, encoder, self.decoder, strategy, config) for clips in sets)
        sources = {"image_encoder": encoder.checkpoint.sha256, "decoder": self.decoder.checkpoint.sha256}
        start, self.fresh = _started(self.module, config, encoder)
        self.parents = {**sources, **start, "train_clips": sets[0].sha256}
        self.inputs = " ".join(self.parents.values())
        self.objective = Objective(self.train_set, config)

    def ship(self, averaged: VideoWriter, path: Path, changes: dict[str, Any]) -> None:
        told = {name: self.config[name] for name in ("size", "steps", *WRITTEN_ALIKE)}
        shape = {"model": averaged.config.to_dict(), "strategy": averaged.strategy.to_dict()}
        checkpoints.save(
            path,
            averaged,
            kind=VideoWriter.KIND,
            config={**shape, "head": averaged.head_name},
            parents=self.parents,
            facts={"vocabulary": list(vocabulary()), "fresh": self.fresh, **told, **changes},
        )

    def measure(self, averaged: VideoWriter, path: Path, folder: Path) -> runner.Measured:
        writer = VideoWriter.load(path, self.config["device"])
        metrics = self._metrics(writer)
        return runner.Measured(
            protocol={"data": DATA, "split": "test", "manifest": self.test_set.clips.manifest},
            model={
                "sha256": writer.checkpoint.sha256,
                "parents": self.parents,
                "strategy": {"name": writer.strategy.name, **writer.strategy.to_dict()},
                "head": writer.head_name,
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics=metrics,
            told={name: round(metric.value, 3) for name, metric in metrics.items()},
        )

    def _metrics(self, writer: VideoWriter) -> dict[str, records.Metric]:
        held, length = self.test_set, writer.strategy.length()
        count = len(held.clips)
        found = {"tokens": catalogue.of("mean_tokens").measured(float(length), count)}
        if writer.head.discrete:
            bits = held.loss(writer) / (GROUPS * math.log(2))
            found["bits_per_code"] = catalogue.of("bits_per_code").measured(bits, count * length * GROUPS)
        if self.config["understanding_weight"]:
            given = lessons.answered(writer.language, held.features, held.lessons)
            right = 100 * float((given == held.lessons.answers).mean())
            found["accuracy"] = catalogue.of("accuracy").measured(right, given.size)
        return found


class Pairs:
    """Clips as captions and true tokens, which a frozen coder makes once."""

    def __init__(
        self, clips: ClipSet, encoder: ImageEncoder, decoder: VideoDecoder, strategy: Strategy, config: dict[str, Any]
    ) -> None:
        self.clips, self.coder, self.strategy, self.device = clips, decoder.coder, strategy, config["device"]
        self.features = features_of(encoder, clips, device=self.device)
        self.captions = torch.from_numpy(captions.numbers(clips.labels["caption"].astype(str)))
        self.lessons = Lessons.of(clips.labels)
        self.codes, self.latents = self._coded(reader(strategy, self.features))

    @torch.no_grad()
    def _coded(self, read: VideoTokens, at_once: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes (N, L, G) and latents (N, L, Z) of all clips."""
        parts = []
        for span in ranges(len(self.clips), at_once):
            rows = np.arange(*span)
            raw = read.raw(self.features.take(rows, self.device))
            parts.append((self.coder.codes(raw, self.strategy).cpu(), self.coder.latents(raw, self.strategy).cpu()))
        codes, latents = zip(*parts, strict=True)
        return torch.cat(codes), torch.cat(latents)

    @torch.no_grad()
    def of(self, rows: np.ndarray) -> tuple[torch.Tensor, Tokens]:
        """Return captions (B, W) and tokens of these clips."""
        codes = self.codes[rows].to(self.device)
        tokens = Tokens(codes, self.coder.values_of(codes, self.strategy), self.latents[rows].to(self.device))
        return self.captions[rows].to(self.device), tokens

    @torch.no_grad()
    def loss(self, writer: VideoWriter, at_once: int = 50) -> float:
        """Return the mean loss of a writer over all of them."""
        total, generator = 0.0, torch.Generator().manual_seed(0)
        for span in ranges(len(self.clips), at_once):
            rows = np.arange(*span)
            total += len(rows) * float(writer.loss(*self.of(rows), self.coder, FRAMES, generator))
        return total / len(self.clips)


class Objective:
    """The loss of one step: captions with the tokens to write, and the questions if trained jointly."""

    def __init__(self, pairs: Pairs, config: dict[str, Any]) -> None:
        self.pairs, self.config = pairs, config

    def __call__(self, module: VideoWriter, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        pairs, config = self.pairs, self.config
        rows = loop.batch_indices(len(pairs.clips), config["batch"], step, config["seed"])
        captions_BW, tokens = pairs.of(rows)
        terms = {"written": module.loss(captions_BW, tokens, pairs.coder, FRAMES, generator)}
        loss = terms["written"]
        if config["understanding_weight"]:
            features = pairs.features.take(rows, config["device"])
            terms["answers"], terms["right"] = lessons.loss(module.language, features, pairs.lessons.take(rows))
            loss = loss + config["understanding_weight"] * terms["answers"]
        return loss, terms


def written_strategy(config: dict[str, Any]) -> Strategy:
    """Return the configured strategy. Raises ConfigError for one whose tokens cannot be written."""
    try:
        strategy = Strategy(config["strategy"], key=config["key"], fps=config["fps"], frames=config["frames_sampled"])
        strategy.picks(FRAMES)
        motion_kind(strategy)
    except (StrategyError, TokenCodeError) as error:
        raise ConfigError(f"config keys strategy, key, fps, frames_sampled: {error}") from error
    if not strategy.length():
        raise ConfigError("config key strategy: none has no tokens to write; vtok_align with tokens=none measures it")
    return strategy


def parts(config: dict[str, Any]) -> tuple[ImageEncoder, VideoDecoder]:
    """Load image encoder and decoder. Raises ConfigError for a decoder trained on another encoder's features."""
    encoder = ImageEncoder.load(config["encoder"], config["device"])
    decoder = VideoDecoder.load(config["decoder"], config["device"])
    vtok_training.check_encoder(config, "decoder", decoder.checkpoint, encoder)
    return encoder, decoder


def _started(module: VideoWriter, config: dict[str, Any], encoder: ImageEncoder) -> tuple[dict[str, str], list[str]]:
    """Load the weights to start from; return their identity as parent, and the parameters that they lack.

    Raises:
        ConfigError: weights trained with another encoder or strategy.
    """
    if not config["start"]:
        return {}, sorted(module.language.state_dict())
    start = VideoLanguageModel.load(config["start"], config["device"])
    vtok_training.check_encoder(config, "start", start.checkpoint, encoder)
    if start.strategy.name != module.strategy.name:
        raise ConfigError(
            f"config key start: {config['start']} was trained with the strategy {start.strategy.name}, not "
            f'{module.strategy.name}; give the model of the same strategy, or "" to start untrained'
        )
    return {"start": start.checkpoint.sha256}, module.language.start_from(start)


if __name__ == "__main__":
    tracking.command_line(ex)
