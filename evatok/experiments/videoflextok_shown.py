"""VideoFlexTok Fig. 2: a few clips decoded from more and more tokens per latent frame, to look at.

python -m evatok.experiments.videoflextok_shown with tokenizer=PATH                CPU, seconds
python -m evatok.experiments.videoflextok_shown with tokenizer=PATH clips=4 kept=[1,4,16]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evatok.data.clips import from_network, to_network
from evatok.experiments import keys, tracking
from evatok.experiments.outputs import Outputs
from evatok.experiments.setting import autocast, set_threads
from evatok.experiments.videoflextok_measurement import record_of, tokenizer_of, validation_clips
from evatok.metrics import catalogue
from evatok.metrics.pixels import psnr
from evatok.pictures import stored
from evatok.storage.records import Metric
from evatok.tokenizers.videoflextok import VideoFlexTok

ex = tracking.experiment("videoflextok_shown", __doc__, keys.RUN)


@ex.config
def config() -> None:
    tokenizer = "results/checkpoints/videoflextok-toy-stage2-full.safetensors"
    latents = ""
    data = "freedoom"
    fps = None
    clips = 3
    kept = [1, 2, 4, 8, 16]  # paper: 1, 2, 4 to 256 [Fig. 2]
    flow_steps = 20  # paper: 30 to 40
    flow_guidance = 1.0
    noise_seed = 0
    shown = "results/samples/videoflextok-reconstructed.npz"
    bf16 = None
    seed = 0


ex.add_named_config("toy", {"size": "toy"})


@tracking.main(ex, Outputs(folders=("records_folder",), files=("shown",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    set_threads(config["threads"])
    tokenizer = tokenizer_of(config)
    clips = validation_clips(config, tokenizer)
    real = np.asarray(clips.clips)
    made = {kept: decoded(tokenizer, real, config, kept) for kept in sorted(set(config["kept"]))}
    tracker.artifact(stored.save(config["shown"], *beside(real, made)))
    metrics = {f"psnr_k{kept}": quality(real, clip) for kept, clip in made.items()}
    record = record_of("videoflextok_shown", config, tracker, tokenizer, clips, metrics)
    return {"record": tracker.record(record), "metrics": {name: metric.value for name, metric in metrics.items()}}


@torch.no_grad()
def decoded(tokenizer: VideoFlexTok, real: np.ndarray, config: dict[str, Any], kept: int) -> np.ndarray:
    """Decode samples uint8 of clips (N, T, H, W, 3) with `kept` tokens per latent frame, all lengths from one noise."""
    with autocast(config):
        codes = tokenizer.encode(to_network(real, config["device"]), tokenizer.lengths(kept, len(real)))
        made = tokenizer.decode(
            codes, steps=config["flow_steps"], guidance=config["flow_guidance"], seed=config["noise_seed"]
        )
    return from_network(made.float())


def quality(real: np.ndarray, made: np.ndarray) -> Metric:
    """Return the mean PSNR of a few clips, too few for an interval."""
    values = psnr(to_network(real), to_network(made))
    return catalogue.of("psnr").measured(float(values.double().mean()), len(values))


def beside(real: np.ndarray, made: dict[int, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return every clip followed by its reconstructions, clip by clip, with labels."""
    columns = {"real": real, **{f"{kept} token{'s' * (kept != 1)} per frame": clips for kept, clips in made.items()}}
    clips = np.stack([column[number] for number in range(len(real)) for column in columns.values()])
    return clips, [f"clip {number}\n{told}" for number in range(len(real)) for told in columns]


if __name__ == "__main__":
    tracking.command_line(ex)
