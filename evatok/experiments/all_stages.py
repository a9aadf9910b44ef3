"""Run stages 1 to 4 in slices of limited time, for GPUs rented by the minute and for preemptible queues.

Each command resumes where the last one stopped, stage after stage, and exits when `minutes` are up, so that short slots
can be chained until all is done. Finished stages are not run again. A size means the same as in each stage by itself:
steps, clips and batch are the stage's own unless given here.

    python -m evatok.experiments.all_stages with small minutes=9         one modern GPU; again until it says complete
    python -m evatok.experiments.all_stages with toy quick minutes=5     a short look on a CPU

The pace of every training is printed: seconds per step, tokens per second and, on a GPU of known peak, model FLOPs
utilisation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evatok.experiments import (
    keys,
    pretrain_videomae,
    stage1_proxy,
    stage2_curation,
    stage3_router,
    stage4_final,
    tokenizer_training,
    tracking,
)
from evatok.experiments.outputs import Outputs
from evatok.experiments.tracking import Experiment
from evatok.models.encoders import load_encoder
from evatok.search import candidate_table
from evatok.storage import checkpoints, records

ex = tracking.experiment("all_stages", __doc__, keys.RUN)


@ex.config
def config() -> None:
    data = "freedoom"
    minutes = 0.0
    folder = "results/work/all_stages"
    train_clips = None
    scored_clips = None
    validation_clips = 320
    encoder_steps = None
    proxy_steps = None
    router_steps = None
    final_steps = None
    batch = None
    router_batch = None
    token_share = 0.704
    compile = False
    seed = 0


@ex.named_config
def toy() -> None:
    size = "toy"


@ex.named_config
def small() -> None:
    size = "small"
    folder = "results/work/all_stages-small"
    device = "cuda"


@ex.named_config
def quick() -> None:
    train_clips = 1600
    scored_clips = 160
    validation_clips = 32
    encoder_steps = 300
    proxy_steps = 600
    router_steps = 300
    final_steps = 600
    batch = 16
    router_batch = 32


@dataclass(frozen=True)
class Job:
    """One experiment with its settings and the file or folder it makes."""

    name: str
    experiment: Experiment
    settings: dict[str, Any]
    outcome: Path

    @property
    def ended(self) -> bool:
        """Whether its outcome exists and is recorded: a kill may fall between the two."""
        if not self.outcome.exists():
            return False
        made = _sha256(self.outcome)
        found = records.query(self.settings["records_folder"], self.experiment.path)
        return any(made in (record.model.get("sha256"), record.model.get("table")) for record in found)

    def run(self, size: str, minutes: float) -> dict[str, Any]:
        """Run the experiment for at most this many minutes (0: no limit); return its result."""
        updates = {**self.settings, "minutes": minutes}
        result: dict[str, Any] | None = self.experiment.run(named_configs=(size,), config_updates=updates).result
        return result or {}


@tracking.main(ex, Outputs(folders=("folder", "records_folder"), owned=("folder",)))
def main(config: dict[str, Any], tracker: tracking.Tracker) -> dict[str, Any]:
    left: Callable[[], float | None] | None = None
    done: dict[str, Any] = {}
    for job in jobs(config):
        if job.ended:
            done[job.name] = {"complete": True, "earlier": True}
            continue
        # Starts at the first unfinished job: every slice makes progress, however long checking the finished ones takes.
        left = left or _clock(config["minutes"])
        minutes = left()
        if minutes is None:
            return {"complete": False, "next": job.name, "stages": done}
        done[job.name] = job.run(config["size"], minutes)
        tracker.info({"stages": done})
        if not done[job.name].get("complete", True):
            return {"complete": False, "next": job.name, "stages": done}
    return {"complete": True, "stages": done}


def jobs(config: dict[str, Any]) -> list[Job]:
    """List all experiments to run, in order."""
    folder = Path(config["folder"])
    proxy, router, encoder = folder / "proxy.safetensors", folder / "router.safetensors", folder / "videomae"
    tables = {split: folder / f"{split}.parquet" for split in ("train", "validation")}
    common = {key: config[key] for key in ("device", "threads", "records_folder", "seed")}
    clips = {"data": config["data"], "train_clips": config["train_clips"]}
    sizes = {**common, **clips, "validation_clips": config["validation_clips"], "batch": config["batch"]}

    def job(name: str, experiment: Experiment, outcome: Path, key: str, **settings: Any) -> Job:
        given = {key: value for key, value in settings.items() if value is not None}  # None: the stage's own
        return Job(name, experiment, {**given, "work": str(folder / "work" / name), key: str(outcome)}, outcome)

    settings = {**sizes, "steps": config["encoder_steps"], "probe_data": "none"}
    found = [job("encoder", pretrain_videomae.ex, encoder, "checkpoint", **settings)]
    settings = {**sizes, "steps": config["proxy_steps"], "compile": config["compile"]}
    found.append(job("proxy", stage1_proxy.ex, proxy, "checkpoint", **settings))
    for split, count in (("train", config["scored_clips"]), ("validation", config["validation_clips"])):
        scored = {"data": config["data"], "split": split, "clips": count, "tokenizer": str(proxy)}
        found.append(job(f"scores-{split}", stage2_curation.ex, tables[split], "table", **common, **scored))
    point = {"token_share": config["token_share"], **{f"{split}_table": str(path) for split, path in tables.items()}}
    settings = {**common, **point, "steps": config["router_steps"], "batch": config["router_batch"]}
    settings |= {"router": "pyramid", "target": "soft"}
    found.append(job("router", stage3_router.ex, router, "checkpoint", **settings))
    final = {**sizes, "steps": config["final_steps"], "alignment": str(encoder), "semantic_encoder": str(encoder)}
    final |= {"alignment_resize": 0, "semantic_resize": 0, "semantic_layers": [2, 5, 8, 11]}  # the clips' own size
    if config["size"] == "toy":  # its discriminator uses another encoder
        final |= {"semantic_layers": tokenizer_training.TOY["semantic_layers"], "semantic_frames": 0}
    for rule in ("uniform", "router"):
        settings = {**final, "compile": config["compile"], "assignment": rule, "router": str(router)}
        outcome = folder / f"final-{rule}.safetensors"
        found.append(job(f"final-{rule}", stage4_final.ex, outcome, "checkpoint", **settings))
    return found


def _sha256(outcome: Path) -> str:
    """Hash a checkpoint, a candidate table or an encoder's folder, as records do."""
    if outcome.is_dir():
        return load_encoder(str(outcome)).weights_sha256
    if outcome.suffix == ".parquet":
        return candidate_table.read(outcome).sha256
    return checkpoints.load(outcome).sha256


def _clock(minutes: float) -> Callable[[], float | None]:
    """Return a clock of the minutes left: 0 for no limit, None once they are up."""
    opened = time.monotonic()

    def left() -> float | None:
        if not minutes:
            return 0.0
        rest = minutes - (time.monotonic() - opened) / 60
        return rest if rest > 0 else None

    return left


if __name__ == "__main__":
    tracking.command_line(ex)
