"""What the stages share: threads, precision, assignment rules, and the training folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch

from evatok.assignments.rules import Rule, RuleError
from evatok.data.sets import is_embedded
from evatok.data.streaming import Streaming
from evatok.experiments.config_checks import ConfigError
from evatok.experiments.outputs import FREE_KEYS, Outputs
from evatok.experiments.tracker import Tracker
from evatok.models import precision
from evatok.routing import rules
from evatok.storage import records
from evatok.storage.files import ordinary, write_json
from evatok.tokenizers.evatok import TokenizerConfig
from evatok.training import loop
from evatok.training.loop import Recipe

Shape = TypeVar("Shape")

TRAINING = Outputs(folders=("work", "records_folder"), files=("checkpoint",), owned=("work",))
"""What a training writes."""

_FREE_KEYS = {*FREE_KEYS, *TRAINING.folders, *TRAINING.files}  # may differ between a run and its continuation

_BEFORE = {"short": "skip", "random_start": False, "fp16": False}
"""Keys added after trainings already existed, with the values those trainings used."""

_CLAIM = "training.json"


def set_threads(threads: int) -> None:
    """Use this many CPU threads; 0 leaves PyTorch's choice."""
    if threads:
        torch.set_num_threads(threads)


def of_size(sizes: dict[str, Shape], size: str, key: str = "size") -> Shape:
    """Return the shape that value `size` of config key `key` names.

    Raises:
        ConfigError: unknown size.
    """
    if size not in sizes:
        raise ConfigError(f"config key {key}: {size!r} is not one of {', '.join(sizes)}")
    return sizes[size]


def autocast(config: dict[str, Any]) -> torch.autocast:
    """Autocast on the configured device: bfloat16 if `bf16`, float16 if `fp16`."""
    return precision.autocast(config["device"], config["bf16"], config.get("fp16", False))


def streaming_of(config: dict[str, Any], data: str, *, training: bool = False) -> Streaming | None:
    """Return how clips of `data` are decoded on the fly; None: decoded up front, or embedded.

    Only for `training` do they start at random frames: what is measured, scored or coded must not vary.

    Raises:
        ConfigError: `short` or `random_start` without workers.
    """
    random_start = training and config.get("random_start", False)
    if not config["workers"] and (config["short"] != "skip" or random_start):
        key = "random_start" if random_start else "short"
        raise ConfigError(
            f"config key {key}: needs videos that are decoded while they are used; set workers=2, or more"
        )
    if not config["workers"] or (is_embedded(data) and not training):
        return None
    return Streaming(config["workers"], random_start=random_start, short=config["short"], seed=config["seed"])


def rule_of(text: str, shape: TokenizerConfig, config: dict[str, Any], key: str = "assignment") -> Rule:
    """Parse the assignment rule of config key `key`. Raises ConfigError for an unknown form, else as `parse`."""
    try:
        return rules.parse(text, shape, seed=config["seed"], device=config["device"])
    except RuleError as error:
        raise ConfigError(f"config key {key}: {error}") from error


def claim_folder(
    folder: Path, config: dict[str, Any], inputs: str, tracker: Tracker, *, steps_may_change: bool = False
) -> Path:
    """Create or reopen the training folder; a run that reopens it names the run it resumes.

    Args:
        inputs: identity (sha256) of the data trained on.
        steps_may_change: a training may resume with a different number of steps, to stop earlier or train longer: the
            learning rate follows the new schedule from there on, and the folder records the change
            (`schedule_changes`).

    Raises:
        ConfigError: the folder holds a training with other configuration or data, or with more steps than requested.
    """
    claim = folder / _CLAIM
    mine: dict[str, Any] = {"config": {k: v for k, v in config.items() if k not in _FREE_KEYS}, "inputs": inputs}
    if claim.exists():
        found = _read_claim(claim)
        if steps_may_change:
            mine |= _changes(folder, found, config["steps"])
            found["config"]["steps"] = config["steps"]
        before = {key: value for key, value in _BEFORE.items() if key in mine["config"]}
        found["config"] = {**before, **found["config"]}
        keys = (mine["config"].keys() | found["config"].keys()) - _FREE_KEYS
        odd = sorted(k for k in keys if mine["config"].get(k) != found["config"].get(k))
        if odd or found["inputs"] != inputs:
            what = _difference(odd[0], found["config"], mine["config"]) if odd else "it was trained on other clips"
            raise ConfigError(f"{folder} holds another training ({what}): delete it, or set work=FOLDER")
        if found["run"]:
            tracker.resumes(found["run"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(claim, {**mine, "run": tracker.run_id})
    return folder


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Describe how two trainings differ in config key `key`, which one of them may lack."""
    if key not in before:
        return f"it was started before the key {key} existed, now {now[key]!r}"
    return f"{key} was {before[key]!r}" + ("" if key in now else ", a key that no longer exists")


def _read_claim(path: Path) -> dict[str, Any]:
    """Read the configuration a training folder was claimed for. Raises ConfigError for a damaged file."""
    try:
        found = json.loads(ordinary(path).read_text(encoding="utf-8"))
        whole = isinstance(found["config"], dict) and isinstance(found["inputs"], str) and "steps" in found["config"]
        changes = found.get("changes", [])
        if not whole or not isinstance(changes, list) or not isinstance(found["run"], str | None):
            raise ValueError("it lacks a configuration or inputs")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: damaged ({error}), so what {path.parent} holds is unknown: delete the folder to train "
            "from scratch, or set work=FOLDER"
        ) from error
    return found


def _changes(folder: Path, found: dict[str, Any], steps: int) -> dict[str, Any]:
    """List the changes of a claimed folder's number of steps, this one included."""
    earlier, before, done = found.get("changes", []), found["config"]["steps"], loop.steps_done(folder)
    if before == steps:
        return {"changes": earlier} if earlier else {}
    if done > steps:
        raise ConfigError(f"config key steps: {folder} already holds a training of {done} steps, {steps} requested")
    return {"changes": [*earlier, {"after_step": done, "instead_of": before}]}


def schedule_changes(folder: Path) -> dict[str, Any]:
    """Return how resuming changed the number of steps: after which step, and the previous number.

    Empty if it never changed.
    """
    changes = _read_claim(folder / _CLAIM).get("changes")
    return {"schedule_changes": changes} if changes else {}


def recipe(config: dict[str, Any]) -> Recipe:
    """Build the training recipe of a flat configuration."""
    return Recipe(
        steps=config["steps"],
        learning_rate=config["learning_rate"],
        final_learning_rate=config["final_learning_rate"],
        warmup=config["warmup"],
        weight_decay=config["weight_decay"],
        clip_norm=config["clip_norm"],
        ema=config["ema"],
        seed=config["seed"],
        log_every=config["log_every"],
        save_every=config["save_every"],
        schedule=config.get("schedule", "cosine"),  # only generator configurations name one
        accumulate=config.get("accumulate", 1),
        fp16=config.get("fp16", False),
        fsdp=config.get("fsdp", False),
    )


def optional_artifact(name: str, path: Path) -> dict[str, records.Artifact]:
    """Return the file as a record's artifact if inside the repository, else none: records name no paths outside."""
    inside = path.is_file() and path.resolve().is_relative_to(records.REPOSITORY)
    return {name: records.Artifact.of(path, records.REPOSITORY)} if inside else {}


def uniform_tokens(config: dict[str, Any], shape: TokenizerConfig, default: int) -> int:
    """Return the tokens per block of the configured uniform assignment. Raises ConfigError unless they are a level."""
    tokens = int(config["uniform_tokens"] or default)
    if tokens not in shape.levels:
        raise ConfigError(f"config key uniform_tokens: {tokens} is not one of the levels {shape.levels}")
    return tokens
