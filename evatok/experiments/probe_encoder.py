"""Measure what a frozen encoder knows: how well a linear probe reads clip labels off its features.

A discriminator or an alignment can only use what its encoder can tell apart. Features are averaged over each clip, so
motion counts only if individual features encode it. What every single frame shows, such as a game by its screen, does
not test a video encoder; motions do.

    python -m evatok.experiments.probe_encoder with toy    of 64 clips
    python -m evatok.experiments.probe_encoder with encoder=results/checkpoints/videomae-toy
    python -m evatok.experiments.probe_encoder with probe_data=arcade-seen 'probe_labels=["game"]'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from evatok.data.clips import ClipSet
from evatok.data.sets import clip_set
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import of_size, set_threads
from evatok.metrics import catalogue
from evatok.metrics.probe import balanced_accuracy, mean_features, ridge_probe
from evatok.models.encoders import load_encoder
from evatok.storage import records
from evatok.tokenizers.evatok import TOKENIZER_SIZES

ex = tracking.experiment("probe_encoder", __doc__, keys.RUN)

CLASSIFIER = "class-balanced ridge"


@ex.config
def config() -> None:
    encoder = "efficientnet-lite0"  # paper: VideoMAE-B discriminates, V-JEPA2-L aligns
    encoder_layers = list[int]()
    encoder_resize = 0
    probe_data = "freedoom"
    probe_labels = ["motion"]
    probe_train_clips = 640
    probe_clips = 320
    fps = None
    batch = 16
    bf16 = None


@ex.named_config
def toy() -> None:
    probe_train_clips = 48
    probe_clips = 16


@tracking.main(ex, Outputs(folders=("records_folder",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    encoder = load_encoder(config["encoder"], resize=config["encoder_resize"] or None).to(config["device"])
    layers = config["encoder_layers"] or [encoder.depth]
    if max(layers) > encoder.depth:
        raise tracking.ConfigError(f"config key encoder_layers: {max(layers)} of an encoder of {encoder.depth} layers")
    shape = of_size(TOKENIZER_SIZES, config["size"])
    train, test = (
        clip_set(config["probe_data"], split, count, size=shape.size, frames=shape.frames, fps=config["fps"])
        for split, count in (("train", config["probe_train_clips"]), ("validation", config["probe_clips"]))
    )
    how = {key: config[key] for key in ("batch", "device", "bf16")}
    features = [mean_features(encoder, clips.clips, layers, **how) for clips in (train, test)]
    metrics = probed({"": features}, train, test, config["probe_labels"])
    record = records.new_record(
        kind="probe_encoder",
        status=config["size"],
        protocol={
            "data": config["probe_data"],
            "split": "validation",
            "clips": len(test),
            "train": train.manifest,
            "classifier": f"{CLASSIFIER} on the mean features of the layers, strength by leave-one-out",
            "accuracy": "balanced: mean over labels",
        },
        model={
            "encoder": encoder.source,
            "family": encoder.family,
            "sha256": encoder.weights_sha256,
            "layers": list(layers),
            "features": features[0].shape[1],
            "run": tracker.run_id,
        },
        metrics=metrics,
        config=config,
        environment=tracker.environment(),
    )
    return {"record": tracker.record(record), "accuracy": {name: metric.value for name, metric in metrics.items()}}


def probed(
    features: Mapping[str, Sequence[torch.Tensor]], train: ClipSet, test: ClipSet, labels: Sequence[str]
) -> dict[str, records.Metric]:
    """Return the balanced accuracy of linear probes on features of training and test clips, and of chance.

    Args:
        features: of the training clips (N, D) and of the test clips (M, D), by the suffix of their metrics' names.

    Raises:
        ConfigError: a label that the clips lack.
    """
    found = {}
    for label in labels:
        known, asked = (label_of(clips, label) for clips in (train, test))
        for name, (train_features, test_features) in features.items():
            said = ridge_probe(train_features, known, test_features)
            found[f"probe_{label}{name}"] = balanced_accuracy(said, asked)
        guess = 1 / len(np.unique(asked))
        found[f"probe_{label}_guess"] = catalogue.of("probe").measured(guess, len(test), 0.0)
    return found


def label_of(clips: ClipSet, label: str) -> np.ndarray:
    """Return (N,) labels of a set's clips. Raises ConfigError if it lacks the column."""
    if label not in clips.labels:
        known = ", ".join(map(str, clips.labels.columns))
        raise tracking.ConfigError(f"config key probe_labels: clip set {clips.name} has no {label!r}, it has {known}")
    return clips.labels[label].to_numpy(dtype=str)


if __name__ == "__main__":
    tracking.command_line(ex)
