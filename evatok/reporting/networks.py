"""The network of a training's record, for counting its operations.

Sizes change in the course of a project: "toy" in an older record is a different network from "toy" today. A record
states its own network (`model.network`); older ones name their checkpoint by its hash, whose header states it if it
ships; and a tokenizer that does not ship is identified by its number of parameters among the shipped networks and
today's of its size. If none of this decides, or two differ, the network is unknown.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from evatok.routing.networks import RouterConfig
from evatok.storage import checkpoints, records
from evatok.storage.records import Record
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig


def tokenizer_of(record: Record, results: Path) -> TokenizerConfig | None:
    """Return the tokenizer a record of stage 1 or 4 trained, or one of stage 2 scored with; None: unknown."""
    if "network" in record.model:
        return TokenizerConfig.from_dict(record.model["network"])
    sha256 = record.model.get("tokenizer", record.model.get("sha256"))
    shipped = checkpoints.headers(results / "checkpoints", "tokenizer")
    for path, header in shipped.items():
        if header["sha256"] == sha256:
            return TokenizerConfig.from_dict(checkpoints.load(path, "tokenizer").config)
    if record.kind == "stage2_curation":
        made = [r for r in records.query(results / "records") if r.model.get("sha256") == sha256]
        return tokenizer_of(made[-1], results) if made else None
    sized = [header["config"] for header in shipped.values() if header["facts"].get("size") == record.status]
    known = {TokenizerConfig.from_dict(config) for config in sized} | {TOKENIZER_SIZES[record.status]}
    fitting = [config for config in known if parameters_of(config) == record.model.get("parameters")]
    return fitting[0] if len(fitting) == 1 else None


def router_of(record: Record, results: Path) -> RouterConfig | None:
    """Return the router a record of stage 3 trained; None: unknown."""
    if "network" in record.model:
        return RouterConfig.from_dict(record.model["network"])
    for path, header in checkpoints.headers(results / "checkpoints", "router").items():
        if header["sha256"] == record.model.get("sha256"):
            return RouterConfig.from_dict(checkpoints.load(path, "router").config)
    return None


@cache
def parameters_of(config: TokenizerConfig) -> int:
    """Count the parameters of a tokenizer of this shape."""
    return sum(p.numel() for p in AdaptiveTokenizer(config).parameters())
