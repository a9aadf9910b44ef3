"""Rows of VTok's tables: how each is trained, which records make it up, and its outcomes.

A table only shows records of one kind: equal image encoder, start, steps, clips and language model size. Of several
such sets it takes the one that fills the most rows; among ties, the newest, then the longest training. A row's seeds
are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evatok.evaluation import per_clip
from evatok.evaluation.protocols import why_not_comparable
from evatok.storage.environment import REPOSITORY
from evatok.storage.records import Record, query
from evatok.vtok.scoring import Outcomes
from evatok.vtok.strategies import Strategy

KIND = "vtok_understanding"
PROTOCOL = "moving-shapes-understanding"
CAMERA_PROTOCOL = "freedoom-understanding"
CAMERA_CLIPS = 4800
"""Training clips of Freedoom, not all of whose frequent motions are asked about."""
LONGER = {"train_clips": 16000, "steps": 6000}
"""Four times the usual clips and steps: do frames learn motion then?"""
SEEDS = (0, 1, 2)
JUDGE_SEED = 7
"""Seed of the learned judge's training, which is no row of a table."""
TRAINED = (
    *("train_clips", "batch", "learning_rate", "final_learning_rate", "warmup", "ema"),
    *("width", "layers", "heads", "size"),
)
"""Configuration shared by the rows of one table, besides the steps."""


@dataclass(frozen=True)
class RowSpec:
    """A row: its strategy, the frame rate of its clips, and how it differs from the usual training.

    `swap_of` names the row whose trained model it measures without training; `trained` overrides the usual training
    configuration.
    """

    name: str
    label: str
    strategy: Strategy
    protocol: str = PROTOCOL
    swap_of: str = ""
    trained: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return the configuration of `vtok_understanding` for this row, without seed and start."""
        kept = self.strategy
        told: dict[str, Any] = {"strategy": kept.kind, "key": kept.key, "fps": kept.fps, "residual": kept.residual}
        told |= {"frames_sampled": kept.frames, "protocol": self.protocol}
        return told | self.trained | ({"steps": 0} if self.swap_of else {})

    def fits(self, record: Record) -> bool:
        held = record.model["strategy"]["name"] == self.strategy.name and record.protocol["name"] == self.protocol
        held = held and all(record.config[key] == value for key, value in self.trained.items())
        held = held and record.config["seed"] != JUDGE_SEED
        return held and bool(record.config["start"]) and (record.config["steps"] == 0) == bool(self.swap_of)


def _vtok(name: str, label: str, protocol: str = PROTOCOL, **settings: Any) -> RowSpec:
    return RowSpec(name, label, Strategy("vtok", **settings), protocol)


ROWS = (
    RowSpec("none", "no visual tokens", Strategy("none")),
    RowSpec("frames4", "4 even frames", Strategy("frames", frames=4)),
    RowSpec("frames8", "8 even frames", Strategy("frames", frames=8)),
    _vtok("vtok", "VTok: key frame 16, motion 6 a second"),
    RowSpec("lavit", "Video-LaViT's strategy, our reading", Strategy("lavit")),
    RowSpec("omni", "OmniTokenizer's strategy, our reading", Strategy("omni")),
    _vtok("key1", "key frame 1", key=1),
    _vtok("key4", "key frame 4", key=4),
    _vtok("key9", "key frame 9", key=9),
    _vtok("key25", "key frame 25", key=25),
    _vtok("motion3", "motion 3 a second", fps=3),
    _vtok("motion12", "motion 12 a second", f"{PROTOCOL}-12fps", fps=12),
    RowSpec("key", "control: key frame alone", Strategy("key")),
    RowSpec("frames11x4", "control: 11 frames of 4 tokens", Strategy("frames", frames=11, key=4)),
    _vtok("absolute", "control: no difference", residual="absolute"),
    _vtok("mean", "control: difference averaged first", residual="mean"),
    _vtok("previous", "control: difference to the frame before", residual="previous"),
    _vtok("shuffled", "control: motion tokens in random order", residual="shuffled"),
    RowSpec("swap", "VTok swapped in, untrained", Strategy("vtok", residual="pooled"), swap_of="frames8"),
)
BY_NAME = {row.name: row for row in ROWS}


def _camera(name: str, label: str, strategy: Strategy) -> RowSpec:
    return RowSpec(name, label, strategy, CAMERA_PROTOCOL, trained={"train_clips": CAMERA_CLIPS})


CAMERA_ROWS = (
    _camera("none", "no visual tokens", Strategy("none")),
    _camera("key", "key frame alone", Strategy("key")),
    _camera("frames4", "4 even frames", Strategy("frames", frames=4)),
    _camera("frames8", "8 even frames", Strategy("frames", frames=8)),
    _camera("vtok", "VTok: key frame 16, each later frame 1", Strategy("vtok", fps=3)),
    _camera("previous", "control: difference to the frame before", Strategy("vtok", fps=3, residual="previous")),
)
"""What the camera does in Freedoom's clips of 16 frames."""
CAMERA_BY_NAME = {row.name: row for row in CAMERA_ROWS}
LONGER_BY_NAME = {name: replace(BY_NAME[name], trained=LONGER) for name in ("frames8", "vtok", "previous")}
CONTROLS = ("key", "frames11x4", "absolute", "mean", "previous", "shuffled")


@dataclass(frozen=True)
class Shown:
    """A row as measured: one record per seed; `outcomes` by seed, empty if outcome files are missing."""

    spec: RowSpec
    records: list[Record] = field(default_factory=list)
    outcomes: Mapping[int, Outcomes] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.spec.strategy.length()

    def value(self, metric: str) -> float | None:
        """Return the mean over seeds; None if nothing is measured."""
        held = [record.metrics[metric].value for record in self.records if metric in record.metrics]
        return float(np.mean(held)) if held else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation over seeds; None for fewer than two."""
        held = [record.metrics[metric].value for record in self.records if metric in record.metrics]
        return float(np.std(held, ddof=1)) if len(held) > 1 else None


@dataclass(frozen=True)
class Family:
    """The kind of records that rows are made of.

    Attributes:
        kind: of the records.
        specs: rows by name.
        set_of: what records of one table have in common.
        command: makes the row whose name is appended.
        trained: steps of the training behind a record, and what else of it rows must share. Rows of 0 steps stand
            beside any.
    """

    kind: str
    specs: Mapping[str, RowSpec]
    set_of: Callable[[Record], str]
    command: str
    trained: Callable[[Record], tuple[int, str]] = lambda record: (int(record.config["steps"]), "")


def shown(
    folder: Path, names: Sequence[str], root: Path = REPOSITORY, family: Family | None = None
) -> dict[str, Shown]:
    """Return the rows of a table by name, from the records in `folder`; rows without a record are empty.

    Args:
        family: their family; None: answers to questions about real clips.

    Raises:
        RecordError: an invalid record or outcome file.
    """
    family = family or UNDERSTANDING
    found = [record for record in query(folder, family.kind) if not why_not_comparable(record)]
    sets: dict[str, list[Record]] = {}
    for record in found:
        sets.setdefault(family.set_of(record), []).append(record)
    best: dict[str, list[Record]] = {}
    order = sorted(sets.values(), key=lambda held: max(record.created for record in held))
    for held in (alike for members in order for alike in _by_training(members, family)):
        rows = {name: _seeds(family.specs[name], held) for name in names}
        if sum(map(bool, rows.values())) >= sum(map(bool, best.values())):
            best = rows
    return {name: _shown(family.specs[name], best.get(name, []), root) for name in names}


def set_of(record: Record) -> str:
    """Return image encoder, stage A and training settings of an understanding row."""
    parents: Mapping[str, str] = record.model["parents"]
    told = {key: record.config[key] for key in TRAINED}
    return f"{parents.get('image_encoder')} {parents.get('stills')} {sorted(told.items())}"


def _by_training(held: list[Record], family: Family) -> Iterator[list[Record]]:
    """Yield the records of each training, by ascending steps, with those that were measured untrained."""
    trainings = {record.id: family.trained(record) for record in held}
    for training in sorted({told for told in trainings.values() if told[0]}) or [(0, "")]:
        yield [record for record in held if trainings[record.id] == training or not trainings[record.id][0]]


def _seeds(spec: RowSpec, held: list[Record]) -> list[Record]:
    """Return the newest record per seed."""
    by_seed = {record.config["seed"]: record for record in held if spec.fits(record)}
    return [by_seed[seed] for seed in sorted(by_seed)]


def _shown(spec: RowSpec, held: list[Record], root: Path) -> Shown:
    arrays = {record.config["seed"]: per_clip.read(record, root) for record in held}
    outcomes = {seed: Outcomes.from_arrays(one) for seed, one in arrays.items() if one is not None}
    return Shown(spec, held, outcomes if len(outcomes) == len(held) else {})


_SCRIPT = "python reproductions/vtok/understanding.py"
UNDERSTANDING = Family(KIND, BY_NAME, set_of, f"{_SCRIPT} --only")
CAMERA = Family(KIND, CAMERA_BY_NAME, set_of, f"{_SCRIPT} --of freedoom --only")
LONGER_TRAINED = Family(KIND, LONGER_BY_NAME, set_of, f"{_SCRIPT} --of longer --only")
FAMILIES = {"": UNDERSTANDING, "freedoom": CAMERA, "longer": LONGER_TRAINED}
"""Families by the name that recipes and `understanding.py --of` use."""
