"""Rows of VTok's generation tables: judged samples generated from captions, their upper bound, and their claims.

Records of `vtok_align` share a table if image encoder, decoder, protocol, judge and sampling settings are equal. Claims
are only made if clips decoded from true tokens show what they should (`gated`): otherwise the decoder decides, not the
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evatok.reporting.claims import UNKNOWN, Sign
from evatok.reporting.vtok_rows import BY_NAME, Family, RowSpec, Shown
from evatok.reporting.vtok_tables import reaches
from evatok.storage.records import Record
from evatok.vtok.scoring import AVERAGE
from evatok.vtok.strategies import Strategy

KIND = "vtok_align"
PROTOCOL = "moving-shapes-align"
CEILING, AGREEMENT = 75.0, 90.0
SAMPLED = ("protocol", "judge", "flow_steps", "flow_guidance", "temperature", "size")
"""Configuration shared by the rows of one table."""


@dataclass(frozen=True)
class MadeSpec(RowSpec):
    """A row of samples: `tokens` are "written" by a model with a `head`, "true" (without captions) or "none"."""

    tokens: str = "written"
    head: str = "codes"

    @property
    def strategy_of(self) -> str:
        """Return the understanding row with the same strategy, whose model a writer starts from."""
        return self.name.removesuffix(f"-{self.head}")

    def settings(self) -> dict[str, Any]:
        """Return the configuration of `vtok_generation` (or `vtok_align`, without a writer), without seed and files."""
        kept = self.strategy
        told: dict[str, Any] = {"strategy": kept.kind, "key": kept.key, "fps": kept.fps, "frames_sampled": kept.frames}
        if self.tokens == "written":
            return told | {"token_head": self.head}
        shown = {"writer": "", "tokens": self.tokens}
        return {**told, **shown, "said": False} if self.tokens == "true" else shown

    def fits(self, record: Record) -> bool:
        model = record.model
        same = model["strategy"]["name"] == self.strategy.name and record.protocol["name"] == self.protocol
        head = self.head if self.tokens == "written" else ""
        as_asked = bool(record.config["said"]) == (self.tokens != "true")
        return same and model["tokens"] == self.tokens and model["head"] == head and as_asked


def _written(name: str, head: str = "codes") -> MadeSpec:
    row = BY_NAME[name]
    label = row.label if head == "codes" else f"control: VTok with {head} instead of codes"
    return MadeSpec(name if head == "codes" else f"{name}-{head}", label, row.strategy, PROTOCOL, head=head)


WRITTEN = ("frames4", "frames8", "vtok", "lavit", "omni", "key1", "key4", "key9", "key25", "motion3")
HEADS = ("flow", "mse")
_NONE = MadeSpec("none", BY_NAME["none"].label, Strategy("none"), PROTOCOL, tokens="none")
_TRUE = MadeSpec("true", "ceiling: true tokens of VTok, no captions", Strategy("vtok"), PROTOCOL, tokens="true")
MADE = (_NONE, _TRUE, *map(_written, WRITTEN), *(_written("vtok", head) for head in HEADS))
MADE_BY_NAME: Mapping[str, MadeSpec] = {row.name: row for row in MADE}


def set_of(record: Record) -> str:
    """Return what rows of one table of samples have in common."""
    parents: Mapping[str, str] = record.model["parents"]
    told = {key: record.config[key] for key in SAMPLED}
    return f"{parents.get('image_encoder')} {parents.get('decoder')} {sorted(told.items())}"


def writing(record: Record) -> tuple[int, str]:
    """Return the steps of a row's writer, 0 if it has none, and how else it was trained."""
    model = record.model
    return int(model["writer_steps"]), str(sorted(model.get("writer_trained", {}).items()))


GENERATION = Family(KIND, MADE_BY_NAME, set_of, "python reproductions/vtok/generation.py --only", writing)


def ceilings(rows: Mapping[str, Shown]) -> list[Sign]:
    """Return what must hold before rows are compared: the decoder shows what tokens encode, a learned judge agrees."""
    agreed, known = (
        reaches(rows, "vtok", "agreement", AGREEMENT, "human judges: within 1 %"),
        rows["vtok"].value("second_accuracy"),
    )
    if agreed.verdict != UNKNOWN and known is not None:
        agreed = replace(agreed, ours=f"{agreed.ours}; on real clips, {known:.1f} % of its answers are right")
    return [reaches(rows, "true", AVERAGE, CEILING, "gate: below it nothing is claimed of generation"), agreed]


def gated(rows: Mapping[str, Shown], signs: Sequence[Sign]) -> list[Sign]:
    """Return claims after their gates; not measured if clips of true tokens miss theirs."""
    first = ceilings(rows)
    value = rows["true"].value(AVERAGE)
    if value is not None and value >= CEILING:
        return [*first, *signs]
    why = "the ceiling is not measured" if value is None else f"the ceiling is {value:.1f} %"
    closed = [sign if sign.verdict == UNKNOWN else replace(sign, ours=why, verdict=UNKNOWN) for sign in signs]
    return [*first, *closed]
