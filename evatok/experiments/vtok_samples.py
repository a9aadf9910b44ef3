"""Generate clips from captions with VTok's writer, or from true tokens, and its decoder; in shards, so runs resume.

Shards hold pixels: 380 MB per row and seed for the 1,001 captions of moving-shapes-align.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evatok.alignment.triples import Triples
from evatok.data.clips import ClipSet, from_network
from evatok.experiments import vtok_decoder
from evatok.experiments.tracking import ConfigError
from evatok.experiments.vtok_generation import WRITTEN_ALIKE, parts, written_strategy
from evatok.storage.shards import Arrays, ShardStore, Tick, computed, ranges
from evatok.vtok import captions
from evatok.vtok.features import features_of
from evatok.vtok.image_encoder import ImageEncoder
from evatok.vtok.strategies import Strategy
from evatok.vtok.tokens import RawTokens
from evatok.vtok.video_decoder import VideoDecoder
from evatok.vtok.writer import VideoWriter

_SHARD = 50  # samples
_VERSION = "1"  # of the sampling code; a change redraws everything


@dataclass(frozen=True)
class Sampler:
    """Captions to clips: a writer or true tokens, and the decoder."""

    config: dict[str, Any]
    encoder: ImageEncoder
    decoder: VideoDecoder
    writer: VideoWriter | None
    strategy: Strategy

    @classmethod
    def of(cls, config: dict[str, Any]) -> Sampler:
        """Load what the configuration names.

        Raises:
            ConfigError: a writer or a decoder that belongs to other networks, or true tokens without a strategy.
            CheckpointError: a file that is missing, damaged, or of another kind.
        """
        encoder, decoder = parts(config)
        if not config["writer"]:
            strategy = written_strategy(config) if config["tokens"] == "true" else Strategy("none")
            if config["tokens"] == "none" and not config["said"]:
                raise ConfigError("config keys tokens, said: without tokens and captions nothing says what to show")
            return cls(config, encoder, decoder, None, strategy)
        writer = VideoWriter.load(config["writer"], config["device"])
        if writer.checkpoint.parents.get("decoder") != decoder.checkpoint.sha256:
            raise ConfigError(
                f"config key writer: {config['writer']} writes the tokens of another decoder's coder than "
                f"{config['decoder']}; run vtok_generation with this decoder"
            )
        return cls(config, encoder, decoder, writer, writer.strategy)

    @property
    def length(self) -> float:
        return float(self.strategy.length())

    def told(self) -> dict[str, Any]:
        """Return a record's entry `model`."""
        parents = {"image_encoder": self.encoder.checkpoint.sha256, "decoder": self.decoder.checkpoint.sha256}
        writer = self.writer
        if writer is not None:
            parents |= {"writer": writer.checkpoint.sha256, "start": writer.checkpoint.parents.get("start", "")}
        return {
            "strategy": {"name": self.strategy.name, **self.strategy.to_dict()},
            "tokens": "written" if writer else self.config["tokens"],
            "head": writer.head_name if writer else "",
            "writer_steps": writer.checkpoint.facts.get("steps", 0) if writer else 0,
            "writer_trained": {name: writer.checkpoint.facts.get(name) for name in WRITTEN_ALIKE} if writer else {},
            "parents": parents,
        }

    def clips(self, asked: Triples, real: ClipSet) -> tuple[np.ndarray, int]:
        """Return uint8 samples (N, F, H, W, 3) of all captions, and how many an earlier run had drawn."""
        said = captions.numbers(asked.prompts)
        if said.shape[0] != len(real):
            raise ConfigError(f"{said.shape[0]} captions for {len(real)} real clips")
        store, pieces = ShardStore(Path(self.config["work"])), [range(*pair) for pair in ranges(len(said), _SHARD)]

        def key(piece: range) -> dict[str, Any]:
            return {**self._identity, "from": piece.start, "captions": _digest(said[piece.start : piece.stop])}

        def make(piece: range, tick: Tick) -> Arrays:
            rows = np.arange(piece.start, piece.stop)
            drawn = self._drawn(torch.from_numpy(said[rows]).to(self.config["device"]), rows, real)
            tick(len(rows))
            return {"clips": drawn}

        with tqdm(total=len(said), desc="samples", unit="clip", disable=None) as bar:
            found = computed(store, pieces, key, make, tick=bar.update)
        return found.joined()["clips"], found.resumed

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Return everything that determines a sample, except its caption."""
        names = ("said", "tokens", "temperature", "flow_steps", "flow_guidance", "seed")
        return {"vtok_align": _VERSION, **self.told(), **{name: self.config[name] for name in names}}

    @torch.no_grad()
    def _drawn(self, said_BW: torch.Tensor, rows: np.ndarray, real: ClipSet) -> np.ndarray:
        config, parts = self.config, []
        for start in range(0, len(rows), config["batch"]):
            piece = slice(start, start + config["batch"])
            raw = self._tokens(said_BW[piece], rows[piece], real)
            made = self.decoder.sample(
                said_BW[piece],
                raw,
                self.strategy,
                indices=rows[piece],
                text=config["said"],
                steps=config["flow_steps"],
                guidance=config["flow_guidance"],
                seed=config["seed"],
            )
            parts.append(from_network(made))
        return np.concatenate(parts)

    def _tokens(self, said_BW: torch.Tensor, rows: np.ndarray, real: ClipSet) -> RawTokens:
        """Return tokens as the decoder reads them: after quantisation."""
        config, frames = self.config, self.decoder.config.frames
        coder = self.decoder.coder
        if self.writer is not None:
            values = self.writer.write(
                said_BW, coder, frames, indices=rows, seed=config["seed"], temperature=config["temperature"]
            )
            return coder.raw(values, self.strategy, frames)
        shown = ClipSet(np.asarray(real.clips[rows]), real.labels.iloc[rows], real.manifest)
        features = features_of(self.encoder, shown, device=config["device"])
        raw = vtok_decoder.reader(self.strategy, features).raw(features.take(np.arange(len(rows)), config["device"]))
        return coder.raw(coder.values_of(coder.codes(raw, self.strategy), self.strategy), self.strategy, frames)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
