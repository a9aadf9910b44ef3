"""Stage 3: train a router to predict the max-proxy-reward assignment in one pass (EVATok Sec. 3.3).

The paper's router is a ViT with cross-entropy over all candidates: `target=hard`, `head=joint`. A few scored clips
cannot fill 625 hard classes, so a router may also learn from all scores of a clip (`target=soft` or `reward`), have one
head per block (`head=per_block`), or read hand-crafted statistics (`router=pyramid`, `router=features`).

    python -m evatok.experiments.stage3_router with toy
    python -m evatok.experiments.stage3_router with embedded target=soft
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from evatok.assignments import reward
from evatok.data.clips import ClipSet, network_batches, to_network
from evatok.experiments import image_settings, keys, runner, tracking
from evatok.experiments.setting import (
    TRAINING,
    autocast,
    of_size,
)
from evatok.metrics import catalogue
from evatok.routing import trained_router
from evatok.routing.initialise import initialise_router
from evatok.routing.networks import MODALITIES, AnyRouter, RouterConfig, build_router
from evatok.search import candidate_table
from evatok.storage import checkpoints, ranks
from evatok.storage.transfer import moved
from evatok.training import loop
from evatok.training.batches import Batches

log = logging.getLogger(__name__)
ex = tracking.experiment("stage3_router", __doc__, keys.STAGE)


@ex.config
def config() -> None:
    modality = "video"
    router = "vit"  # paper: vit
    head = "joint"  # paper: joint
    target = "hard"  # paper: hard
    temperature = 0.15
    metric = "l1"  # paper: LPIPS
    w_q = 1.2  # [Sec. 4.2]
    token_share = 0.0
    train_table = "results/work/stage2_curation/train.parquet"
    validation_table = "results/work/stage2_curation/validation.parquet"
    fps = None  # as in stage 2
    workers = 2
    steps = 600  # paper: 50000 [suppl. C]
    batch = 64  # paper: 128 [suppl. C]
    learning_rate = 5e-4  # not stated; facts: 1e-4 to 3e-4
    final_learning_rate = 1e-5  # not stated
    warmup = 50  # not stated
    weight_decay = 0.05  # not stated
    ema = 0.995  # not stated
    dropout = 0.1  # not stated
    save_every = 100  # also the interval of validation
    work = "results/work/stage3_router"
    checkpoint = "results/work/stage3_router/router.safetensors"
    seed = 0


@ex.named_config
def toy() -> None:
    steps = 300
    batch = 32


@ex.named_config
def embedded() -> None:
    steps = 500
    batch = 32
    token_share = 0.704
    train_table = "results/work/embedded/train.parquet"
    validation_table = "results/tables/candidates/freedoom-validation.parquet"


@ex.named_config
def small() -> None:
    size = "small"
    steps = 10000
    batch = 128
    bf16 = True
    device = "cuda"


@ex.named_config
def paper() -> None:
    size = "paper"
    metric = "lpips-vgg"
    steps = 50000
    batch = 128
    learning_rate = 1e-4
    dropout = 0.0
    fps = 3.0
    bf16 = True
    device = "cuda"


for _name, _settings in image_settings.ROUTERS.items():
    ex.add_named_config(_name, _settings)


@tracking.main(ex, TRAINING, plan="router_cost")
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    return runner.train(config, tracker, RouterTask)


class RouterTask(runner.Task[AnyRouter]):
    """A router trained on the rewards of scored clips."""

    kind = "stage3_router"
    distributed = True

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.lesson = config, Lesson.read(config)
        self.inputs = self.lesson.identity
        self.module = _router(config, self.lesson).to(config["device"])
        self.objective = Objective(self.lesson, config, self.module)

    def look(self) -> dict[str, float]:
        return self.lesson.examine(self.module)

    def ship(self, averaged: AnyRouter, path: Path, changes: dict[str, Any]) -> None:
        facts = {
            "point": asdict(self.lesson.point),
            "target": self.config["target"],
            "size": self.config["size"],
            "train_clips": len(self.lesson.train_clips),
        }
        checkpoints.save(
            path,
            averaged,
            kind="router",
            config=averaged.config.to_dict(),
            parents=self.lesson.parents,
            facts={**facts, **changes},
            dtype=torch.float16,
        )

    def measure(self, averaged: AnyRouter, path: Path, folder: Path) -> runner.Measured:
        shipped, lesson = checkpoints.load(path, "router"), self.lesson
        shipped.fill(averaged)
        found, clips = {**lesson.examine(averaged), **lesson.control()}, len(lesson.validation_clips)
        return runner.Measured(
            protocol={
                "data": lesson.validation_clips.name,
                "split": "validation",
                "clips": clips,
                "w_q": lesson.point.w_q,
                "metric": lesson.point.metric,
                "train_clips": len(lesson.train_clips),
            },
            model={
                "sha256": shipped.sha256,
                "parents": shipped.parents,
                "network": averaged.config.to_dict(),
                "parameters": sum(p.numel() for p in averaged.parameters()),
            },
            metrics={name: catalogue.of(name).measured(value, clips) for name, value in found.items()},
            told={"w_q": lesson.point.w_q, **found},
        )


class Lesson:
    """Clips with their rewards at one operating point, for training and validation."""

    def __init__(
        self,
        tables: dict[str, candidate_table.CandidateTable],
        clips: dict[str, ClipSet],
        point: trained_router.OperatingPoint,
    ) -> None:
        self.point = point
        self.candidates = tables["train"].candidates
        self.train_clips, self.validation_clips = clips["train"], clips["validation"]
        self.rewards = {
            name: reward.proxy_reward(table.quality(point.metric), self.candidates, point.scale, point.w_q)
            for name, table in tables.items()
        }
        self.parents = {
            "tokenizer": tables["train"].origin["tokenizer"],
            "train_table": tables["train"].sha256,
            "validation_table": tables["validation"].sha256,
        }

    @classmethod
    def read(cls, config: dict[str, Any]) -> Lesson:
        """Load tables, their clips, and the operating point, which depends on the training table only.

        Raises:
            CurationError: tables that differ in more than their clips, or clips other than those scored.
        """
        paths = {name: Path(config[f"{name}_table"]) for name in ("train", "validation")}
        tables = {name: candidate_table.read(path) for name, path in paths.items()}
        for name, table in tables.items():
            candidate_table.check_named(paths[name], table, config["records_folder"])
        _check_pair(tables)
        shape = of_size(MODALITIES[config["modality"]], config["size"])
        clips = {
            name: candidate_table.scored_clips(
                table, size=shape.size, frames=shape.frames, fps=config["fps"], workers=config["workers"]
            )
            for name, table in tables.items()
        }
        return cls(tables, clips, operating_point(tables["train"], config))

    @property
    def identity(self) -> str:
        return " ".join(self.parents.values())

    def examine(self, module: torch.nn.Module) -> dict[str, float]:
        """Return top1, top5 and percentile on the validation clips."""
        was_training = module.training
        module.eval()
        ranks = trained_router.ranking(trained_router.logits(module, self.validation_clips.clips))
        module.train(was_training)
        return trained_router.quality_of_ranking(self.rewards["validation"], ranks)

    def control(self) -> dict[str, float]:
        """Return fixed_percentile on the validation clips, of the one assignment that suits the training clips best."""
        held_out = self.rewards["validation"]
        choice = reward.fixed(held_out, reward.best_fixed(self.rewards["train"]))
        return {"fixed_percentile": reward.percentile(held_out, choice)}


class Objective:
    """The loss of one step: clips, their rewards under every candidate, the configured target."""

    def __init__(self, lesson: Lesson, config: dict[str, Any], module: AnyRouter) -> None:
        self.lesson, self.config = lesson, config
        self.rewards = torch.from_numpy(lesson.rewards["train"]).float()
        self.target = trained_router.TARGETS[config["target"]]
        self.seen = self._see_all(module) if module.MIRROR_BLIND else None
        self.batches = Batches(lesson.train_clips, config["batch"], config["seed"], config["flip"], config["device"])

    def __call__(self, module: AnyRouter, step: int, generator: torch.Generator) -> tuple[torch.Tensor, loop.Terms]:
        clips, batch, device = self.lesson.train_clips, self.config["batch"], self.config["device"]
        if self.seen is None:
            pixels, rows, _ = self.batches.take(step, generator)
            seen = module.see(to_network(pixels, device))
        else:
            rows = ranks.share(loop.batch_indices(len(clips), batch, step, self.config["seed"]))
            seen = self.seen[moved(torch.from_numpy(rows), device)]
        rewards = moved(self.rewards[torch.from_numpy(rows)], device)
        with autocast(self.config):
            logits = module.decide(seen)
        loss = self.target(logits.float(), rewards, self.config["temperature"])
        chosen = rewards.gather(1, logits.argmax(1, keepdim=True)).mean()
        return loss, {"regret": rewards.max(1).values.mean() - chosen}

    def _see_all(self, module: AnyRouter, batch: int = 64) -> torch.Tensor:
        """Compute (N, ...) router inputs of every training clip."""
        clips, device = self.lesson.train_clips.clips, self.config["device"]
        return torch.cat([module.see(part) for part, _ in network_batches(clips, batch, device)])


def _check_pair(tables: dict[str, candidate_table.CandidateTable]) -> None:
    """Raise CurationError for tables of different scorers or of the same split; warn if a set has no splits."""
    train, validation = tables["train"].origin, tables["validation"].origin
    for key in ("tokenizer", "levels", "blocks", "perceptual", "perceptual_frames"):
        if train.get(key) != validation.get(key):
            raise candidate_table.CurationError(
                f"the training and validation tables were scored with different {key}: {train.get(key)} and "
                f"{validation.get(key)}; run stage2_curation again for one of them"
            )
    stream = ("source", "split", "seed")
    same = all(train["data"].get(key) == validation["data"].get(key) for key in stream)
    if same or train["data"]["sha256"] == validation["data"]["sha256"]:
        if train["data"].get("split") is None and validation["data"].get("split") is None:
            log.warning("nothing is held out: both tables score %s, a set without splits", train["data"].get("source"))
            return
        raise candidate_table.CurationError(
            "the validation table scores clips of the training table: score a split that is not trained on"
        )


def operating_point(table: candidate_table.CandidateTable, config: dict[str, Any]) -> trained_router.OperatingPoint:
    """Return the configured metric and weights on the scale of the training table."""
    quality = table.quality(config["metric"])
    scale = reward.Scale.of(quality, table.candidates)
    w_q = config["w_q"]
    if config["token_share"]:
        baseline = table.candidates.baseline * table.candidates.blocks
        w_q = reward.matched_weight(quality, table.candidates, scale, config["token_share"] * baseline)
    return trained_router.OperatingPoint(config["metric"], w_q, scale)


def _router(config: dict[str, Any], lesson: Lesson) -> AnyRouter:
    shape: RouterConfig = replace(
        of_size(MODALITIES[config["modality"]], config["size"]),
        kind=config["router"],
        head=config["head"],
        dropout=config["dropout"],
    )
    if shape.levels != lesson.candidates.levels or shape.blocks != lesson.candidates.blocks:
        raise tracking.ConfigError(
            f"config key size: a {config['size']} router has levels {shape.levels} over {shape.blocks} blocks, "
            f"the table was scored with {lesson.candidates.levels} over {lesson.candidates.blocks}"
        )
    module = build_router(shape)
    sample = lesson.train_clips.clips[:: max(1, len(lesson.train_clips) // 256)]
    initialise_router(module, to_network(sample))
    return module


if __name__ == "__main__":
    tracking.command_line(ex)
