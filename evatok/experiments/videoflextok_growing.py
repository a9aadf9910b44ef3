"""VideoFlexTok Fig. 5: one sequence of a generator decoded from more and more of its tokens.

In time-first order a truncated sequence is a prefix of the complete one, so every sample is drawn once, with all
tokens, and its prefixes are decoded from the same noise. Pixel distances tell how much a sample from few tokens already
shares with the one from all of them.

    python -m evatok.experiments.videoflextok_growing with generator=PATH tokenizer=PATH          CPU, minutes
    python -m evatok.experiments.videoflextok_growing with generator=PATH tokenizer=PATH classes=pong,breakout
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from evatok.data.clips import network_batches
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.sampled_generator import generator_of, ordered, request_of
from evatok.experiments.setting import set_threads
from evatok.generation import samples
from evatok.generation.grammar import Sequences
from evatok.generation.order import OrderedGrammar
from evatok.metrics import catalogue
from evatok.metrics.bootstrap import bootstrap
from evatok.metrics.pixels import l1
from evatok.pictures import stored
from evatok.storage import records
from evatok.storage.records import Metric
from evatok.storage.shards import ShardStore
from evatok.tokenizers.codes import Codes

ex = tracking.experiment("videoflextok_growing", __doc__, keys.RUN)


@ex.config
def config() -> None:
    generator = "results/checkpoints/videoflextok-toy-generator.safetensors"
    tokenizer = "results/checkpoints/videoflextok-toy-stage1-base.safetensors"
    latents = ""
    classes = ""
    kept = [1, 2, 4, 8]  # and all; paper: 1 to 256 [Fig. 5]
    count = 64
    guidance = 1.0
    temperature = 1.0
    flow_steps = 20  # paper: 30 to 40
    flow_guidance = 1.0
    batch = 64
    shard_length = 64
    bf16 = False
    show = 4
    shown = "results/samples/videoflextok-growing.npz"
    work = "results/work/videoflextok_growing"
    seed = 0


ex.add_named_config("toy", {"size": "toy"})


@tracking.main(ex, Outputs(folders=("work", "records_folder"), files=("shown",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    video = generator_of({**config, "kept": 0})
    grammar = ordered(video)
    levels = [*sorted({kept for kept in config["kept"] if kept != grammar.kept}), grammar.kept]
    if len(levels) == 1:
        raise tracking.ConfigError(
            f"config key kept: the generator writes {grammar.kept} tokens per latent frame, so {config['kept']} leaves "
            "no shorter prefix to compare; give fewer"
        )
    for kept in levels:
        grammar.stopping_at(kept)  # rejects impossible values before anything is drawn
    names = [word.strip() for word in config["classes"].split(",") if word.strip()] or list(video.classes)
    asked = [names[number % len(names)] for number in range(config["count"])]
    request = request_of(config, video, asked)
    drawn = samples.draw(request, ShardStore(Path(config["work"])), shard_length=config["shard_length"])
    made = {kept: video.clips(prefix(grammar, drawn.codes, kept)) for kept in levels}
    metrics = measured(made)
    if config["shown"]:
        tracker.artifact(stored.save(config["shown"], *shown(made, asked, config["show"])))
    record = records.new_record(
        kind="videoflextok_growing",
        status=config["size"],
        protocol={
            "samples": len(asked),
            "classes": names,
            "kept": levels,
            **{key: config[key] for key in ("flow_steps", "flow_guidance", "seed")},
        },
        model={**request.identity(), "facts": video.checkpoint.facts, "run": tracker.run_id},
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
    )
    return {"record": tracker.record(record), "metrics": {name: metric.value for name, metric in metrics.items()}}


def prefix(grammar: OrderedGrammar, codes: Codes, kept: int) -> Codes:
    """Return the codes of sequences that stop after `kept` tokens per latent frame, from those of complete ones."""
    shorter = grammar.stopping_at(kept)
    symbols = grammar.build(codes).symbols[:, : shorter.blocks * kept]
    return shorter.parse(Sequences(symbols, torch.full_like(codes.lengths[:, 0], symbols.shape[1])))


def measured(made: dict[int, np.ndarray]) -> dict[str, Metric]:
    """Return the L1 of samples (N, T, H, W, 3) of each length to those of all tokens, with intervals over samples."""
    *levels, most = sorted(made)
    whole = [clips for clips, _ in network_batches(made[most], 16)]
    metrics = {}
    for kept in levels:
        parts = [l1(clips, rest) for (clips, _), rest in zip(network_batches(made[kept], 16), whole, strict=True)]
        values = torch.cat(parts).double().numpy()
        interval = bootstrap(values)
        half = (interval.high - interval.low) / 2
        metrics[f"l1_k{kept}"] = catalogue.of("l1").measured(float(values.mean()), len(values), half)
    return metrics


def shown(made: dict[int, np.ndarray], asked: list[str], count: int) -> tuple[np.ndarray, list[str]]:
    """Return the first samples at every length, sample by sample, with their labels."""
    count, levels = min(count, len(asked)), sorted(made)
    clips = np.stack([made[kept][number] for number in range(count) for kept in levels])
    words = ["all tokens" if kept == levels[-1] else f"{kept} token{'s' * (kept != 1)}" for kept in levels]
    return clips, [f"{asked[number]}\n{word} per frame" for number in range(count) for word in words]


if __name__ == "__main__":
    tracking.command_line(ex)
