"""Stage 2: score every clip under every candidate assignment with the proxy tokenizer (EVATok Sec. 3.2).

Shards of the candidate table are written one by one, so a killed run loses at most one; a rerun fills in what is
missing. `shard=i/n` lets n processes share a set; the last to finish merges the table. Labels for any weights (w_q,
w_l) are then computed from the same table.

    python -m evatok.experiments.stage2_curation with embedded split=validation clips=320
    python -m evatok.experiments.stage2_curation with embedded split=train clips=4000 shard=1/2
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evatok.data.clips import ClipSet, range_sha256
from evatok.data.sets import clip_set, pinned
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import optional_artifact, set_threads, streaming_of
from evatok.metrics import catalogue
from evatok.metrics.perceptual import scoring_metric
from evatok.search import candidate_table, table_shards
from evatok.search.tree import score_set, visits
from evatok.storage import records
from evatok.storage.filenames import file_name
from evatok.storage.shards import Tick, computed, length_of, ranges
from evatok.tokenizers.evatok import AdaptiveTokenizer

Range = tuple[int, int]
"""Clips [start, stop)."""

ex = tracking.experiment("stage2_curation", __doc__, keys.RUN | keys.DECODING | keys.PLAN)


@ex.config
def config() -> None:
    tokenizer = "results/work/stage1_proxy/proxy.safetensors"
    data = "freedoom"
    fps = None  # WebVid: 3.0 [suppl. C]
    split = "validation"
    clips = 64  # paper: 100000 of WebVid [Sec. 3.2]
    search = "tree"
    perceptual = "none"  # lpips-vgg is the paper's family; none: L1, MSE and PSNR only
    perceptual_frames = 0  # paper: 0
    batch = 32
    shard_length = 64
    shard = "0/1"  # torchrun ranks split further
    bf16 = None
    minutes = 0.0  # stops after the current shard
    work = "results/work/stage2_curation"
    table = ""
    seed = 0


@ex.named_config
def toy() -> None:
    clips = 64


@ex.named_config
def embedded() -> None:
    tokenizer = "results/checkpoints/proxy-toy-motion.safetensors"
    perceptual = "st-lpips"
    perceptual_frames = 1
    work = "results/work/embedded/stage2_curation"


@ex.named_config
def small() -> None:
    size = "small"
    bf16 = True
    device = "cuda"
    batch = 128
    clips = 10000
    split = "train"
    table = "results/work/stage2_curation/train.parquet"  # and with split=validation table=.../validation.parquet


@ex.named_config
def paper() -> None:
    size = "paper"
    bf16 = True
    device = "cuda"
    batch = 128
    clips = 100000
    split = "train"
    table = "results/work/stage2_curation/train.parquet"
    fps = 3.0
    perceptual = "lpips-vgg"


@ex.named_config
def image_toy() -> None:
    tokenizer = "results/checkpoints/image-proxy-toy.safetensors"
    data = "images"
    clips = 3000
    split = "train"
    perceptual = "st-lpips"
    work = "results/work/images/curation"


@ex.named_config
def image_small() -> None:
    size = "small"
    data = "images"
    bf16 = True
    device = "cuda"
    batch = 128
    clips = 10000
    split = "train"
    perceptual = "st-lpips"


@ex.named_config
def image_paper() -> None:
    size = "paper"
    data = "imagenet"  # its folder
    bf16 = True
    device = "cuda"
    batch = 256
    clips = 100000
    split = "train"
    perceptual = "lpips-vgg"


@tracking.main(ex, Outputs(folders=("work", "records_folder"), files=("table",)), plan="scoring_cost")
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    share = share_of(config["shard"])
    tokenizer = AdaptiveTokenizer.load(config["tokenizer"], config["device"])
    shape = tokenizer.config
    clips = clip_set(
        config["data"],
        config["split"],
        config["clips"],
        size=shape.size,
        frames=shape.frames,
        fps=config["fps"],
        streaming=streaming_of(config, config["data"]),
    )
    scorer = Scorer(tokenizer, clips, config, origin(tokenizer, clips, config))
    everything = ranges(len(clips), config["shard_length"])
    held = scorer.held(everything)
    todo = [piece for piece in my_ranges(len(clips), config["shard_length"], share) if piece not in held]
    scored = scorer.score(todo)
    if len(scorer.held(everything)) < len(everything):
        return {"scored": scored, "shards": len(todo), "complete": False}
    merged = table_shards.merge(scorer.store.folder, len(clips), config["shard_length"])
    table = replace(merged, origin=scorer.origin)
    if config["table"]:
        candidate_table.write(Path(config["table"]), table)
    # Every share builds the same table; the first to find it complete records it.
    written = tracker.record(_record(config, tracker, table, clips), outcome="table", free=("shard",))
    return {"scored": scored, "clips": len(clips), "complete": True, "record": written}


class Scorer:
    """Scores ranges of one clip set with one tokenizer, one shard file each."""

    def __init__(
        self, tokenizer: AdaptiveTokenizer, clips: ClipSet, config: dict[str, Any], made_by: dict[str, Any]
    ) -> None:
        self.tokenizer, self.clips, self.config, self.origin = tokenizer, clips, config, made_by
        name = file_name(f"{clips.name}-{config['split']}-{made_by['tokenizer'][:8]}")
        self.store = table_shards.TableStore(Path(config["work"]) / name)
        self._keys: dict[Range, dict[str, Any]] = {}
        self.perceptual = scoring_metric(
            config["perceptual"], config["perceptual_frames"], config["device"], bf16=config["bf16"]
        )

    def key(self, piece: Range) -> dict[str, Any]:
        """Return a shard's key, the hash of its own clips, so that a set can be extended later."""
        if piece not in self._keys:
            start, stop = piece
            pixels = range_sha256(self.clips.clips, start, stop)
            data = {**self.origin["data"], "clips": stop - start, "sha256": pixels}
            self._keys[piece] = {"start": start, "stop": stop, "origin": {**self.origin, "data": data}}
        return self._keys[piece]

    def held(self, pieces: list[Range]) -> set[Range]:
        """Return the ranges already scored. Raises CurationError for a damaged shard or one of another origin."""
        there = [piece for piece in pieces if table_shards.shard_path(self.store.folder, *piece).exists()]
        return {piece for piece in there if self.store.check(self.key(piece))}

    def score(self, todo: list[Range]) -> int:
        """Score and write shards as time allows; return the number of clips scored."""
        batches = sum(-(-(stop - start) // self.config["batch"]) for start, stop in todo)
        total = batches * visits(self.tokenizer.config.candidates, self.config["search"])
        with tqdm(total=total, desc="stage 2", unit="visit", disable=None) as bar:

            def make(piece: Range, tick: Tick) -> candidate_table.CandidateTable:
                return self._table(piece, bar.update)

            found = computed(self.store, self._in_time(todo), self.key, make, size=length_of)
        return sum(len(table.clips) for table in found.shards) - found.resumed

    def _in_time(self, todo: list[Range]) -> Iterator[Range]:
        """Yield ranges until `minutes` have passed; the current shard is finished."""
        opened = time.monotonic()
        for piece in todo:
            yield piece
            if self.config["minutes"] and time.monotonic() - opened > 60 * self.config["minutes"]:
                break

    def _table(self, piece: Range, tick: Callable[[], object]) -> candidate_table.CandidateTable:
        (start, stop), began = piece, time.monotonic()
        scores = score_set(
            self.tokenizer,
            self.clips.clips[start:stop],
            search=self.config["search"],
            batch=self.config["batch"],
            bf16=self.config["bf16"],
            perceptual=self.perceptual,
            name=self.config["perceptual"],
            tick=tick,
        )
        seconds = time.monotonic() - began
        return candidate_table.CandidateTable(np.arange(start, stop), scores, self.key(piece)["origin"], seconds)


def share_of(shard: str) -> tuple[int, int]:
    """Parse i and n of `i/n`. Raises ConfigError unless 0 <= i < n."""
    index, _, count = shard.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise tracking.ConfigError(f"config key shard: {shard!r} is not i/n with 0 <= i < n, such as 0/4")
    return int(index), int(count)


def my_ranges(clips: int, length: int, share: tuple[int, int]) -> list[Range]:
    """Return the clip ranges of share i of n and, under torchrun, of this rank."""
    (index, count), rank = share, int(os.environ.get("RANK", 0))
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    return ranges(clips, length)[index * ranks + rank :: count * ranks]


def origin(tokenizer: AdaptiveTokenizer, clips: ClipSet, config: dict[str, Any]) -> dict[str, Any]:
    """Return a shard's header: everything that determines its numbers."""
    shape = tokenizer.config
    return {
        "levels": list(shape.levels),
        "blocks": shape.candidates.blocks,
        "tokenizer": tokenizer.checkpoint.sha256,
        "perceptual": config["perceptual"],
        # Only if some are left out, so that tables from before this key keep their identity.
        **({"perceptual_frames": config["perceptual_frames"]} if config["perceptual_frames"] else {}),
        "precision": "bf16" if config["bf16"] else "fp32",
        "data": {
            "source": pinned(config["data"]),
            **{key: clips.manifest.get(key) for key in ("name", "split", "seed", "clips", "sha256", "versions")},
            **({"streamed": clips.manifest["streamed"]} if "streamed" in clips.manifest else {}),
        },
    }


def _record(
    config: dict[str, Any],
    tracker: tracking.Tracker,
    table: candidate_table.CandidateTable,
    clips: ClipSet,
) -> records.Record:
    """Record the set's mean scores over all candidates and the cost of scoring."""
    count = len(table.clips)
    metrics = {name: catalogue.of(name).measured(float(values.mean()), count) for name, values in table.scores.items()}
    if table.seconds is not None:
        metrics["seconds_per_clip"] = catalogue.of("seconds_per_clip").measured(table.seconds / count, count)
    return records.new_record(
        kind="stage2_curation",
        status=config["size"],
        protocol={
            "data": config["data"],
            "split": config["split"],
            "clips": count,
            "candidates": len(table.candidates),
            "manifest": clips.manifest,
        },
        model={"tokenizer": table.origin["tokenizer"], "table": table.sha256, "run": tracker.run_id},
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
        artifacts=optional_artifact("table", Path(config["table"])),
    )


if __name__ == "__main__":
    tracking.command_line(ex)
