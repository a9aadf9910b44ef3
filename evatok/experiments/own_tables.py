"""Measure trained tokenizers on a user's own clips: find the tokenizer of every row and evaluate it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.evaluation import chosen_metrics, protocols
from evatok.evaluation.pairs import Networks
from evatok.experiments import evaluate
from evatok.experiments.scored_videos import (
    check_enough,
    counted,
    metrics_of,
    own_clips,
    seconds_per_pair,
    tell_time,
)
from evatok.reporting.command_line import OwnClips, checkpoints_folder
from evatok.reporting.final_rows import UNIFORM, Spec, TableSpec
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig


@dataclass(frozen=True)
class Measurement:
    """A tokenizer and the assignment rule it is measured under."""

    checkpoint: Path
    assignment: str


def measured(table: TableSpec, asked: argparse.Namespace) -> OwnClips:
    """Measure a table's tokenizers on a user's clips, resumably; print an estimate of the time first.

    Args:
        asked: the options of `evatok.reporting.final_tables.parser`.

    Raises:
        CheckpointError: the folder holds no row's tokenizer, or lacks the router of one.
        ClipSetError, ManifestError: clips that are unavailable.
        CommandLineError, EvaluationError: metrics that are unknown here, or not of the tokenizers' clips.
    """
    metrics, folder = metrics_of(asked), checkpoints_folder(asked)
    todo = measurements(table, folder, asked.size)
    tokenizer = AdaptiveTokenizer.load(todo[0].checkpoint)
    protocol = protocol_of(tokenizer.config)
    chosen_metrics(protocols.get(protocol), metrics)
    networks = Networks.load(metrics, "cpu")
    clips = own_clips(asked, tokenizer.config.size, tokenizer.config.frames)
    check_enough(clips, metrics)
    seconds = seconds_per_pair(tokenizer, clips, networks) * len(clips) * len(todo)
    tell_time(f"measuring {len(todo)} tokenizers on {counted(clips)}", seconds)
    for one in todo:
        settings: dict[str, Any] = {
            **{"checkpoint": str(one.checkpoint), "assignment": one.assignment, "size": asked.size},
            **{"protocol": protocol, "data": str(clips.folder), "limit": len(clips), "metrics": ",".join(metrics)},
            **{"work": str(asked.results / "work" / "evaluate"), "per_clip": str(asked.results / "per_clip")},
            **{"records_folder": str(asked.results / "records")},
        }
        evaluate.ex.run(config_updates=settings)
    return OwnClips(clips.name, clips.sha256, protocol)


def measurements(table: TableSpec, folder: Path, size: str) -> list[Measurement]:
    """List a table's measurements, each once. Raises CheckpointError if there are none or a router is missing."""
    tokenizers = checkpoints.headers(folder, "tokenizer")
    found: list[Measurement] = []
    for spec in table.specs:
        for path, header in tokenizers.items():
            if _is_of(spec, header["facts"], size):
                rule = _assignment(spec, header, list(tokenizers.values()), folder, size)
                found.append(Measurement(path, rule))
    if not found:
        raise checkpoints.CheckpointError(
            f"{folder}: no {size} tokenizer of any row of {table.name}; without --data the script prints how each is "
            "trained, --checkpoints names another folder"
        )
    return list(dict.fromkeys(found))


def protocol_of(shape: TokenizerConfig) -> str:
    """Return the protocol for a user's clips of a tokenizer's shape. Raises ProtocolError if there is none."""
    own = [protocol for protocol in protocols.PROTOCOLS.values() if protocol.data == "own"]
    fitting = [protocol.name for protocol in own if (protocol.frames, protocol.size) == (shape.frames, shape.size)]
    if not fitting:
        known = ", ".join(f"{protocol.frames}x{protocol.size}" for protocol in own)
        raise protocols.ProtocolError(f"clips of {shape.frames}x{shape.size} have no protocol, only those of {known}")
    return fitting[0]


def _is_of(spec: Spec, facts: dict[str, Any], size: str) -> bool:
    """Whether a tokenizer was trained as a row requires."""
    row = facts.get("row", [UNIFORM[size]]) if spec.measured == "uniform" else [UNIFORM[size]]
    fits = facts.get("size") == size and row == [UNIFORM[size]]
    return fits and spec.trained is not None and all(facts.get(k) == v for k, v in spec.trained.items())


def _assignment(spec: Spec, header: dict[str, Any], others: list[dict[str, Any]], folder: Path, size: str) -> str:
    """Return a row's rule: uniform, the tokenizer's own router or, if trained without one, another row's."""
    if spec.measured == "uniform":
        return f"uniform:{UNIFORM[size]}"
    taught = [held["parents"]["router"] for held in (header, *others) if "router" in held["parents"]]
    routers = {held["sha256"]: path for path, held in checkpoints.headers(folder, "router").items()}
    if not taught or taught[0] not in routers:
        wanted = f"the router {taught[0][:12]}" if taught else "any router"
        raise checkpoints.CheckpointError(f"{folder}: {wanted}, under which {spec.name} is measured, is not there")
    return f"router:{routers[taught[0]]}"
