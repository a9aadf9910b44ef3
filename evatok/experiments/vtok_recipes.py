"""Recipes of VTok's Tables 3 to 5: the image encoder, stage A on stills, then every row with each seed."""

from __future__ import annotations

from collections.abc import Iterator

from evatok.experiments.recipe import CHECKPOINTS, WORK, Recipe
from evatok.reporting.vtok_rows import ROWS, SEEDS

ENCODER = f"{CHECKPOINTS}/vtok-image-encoder-toy.safetensors"
STILLS = f"{CHECKPOINTS}/vtok-stills-toy.safetensors"
FOLDER = f"{WORK}/vtok"


def recipes() -> Iterator[Recipe]:
    """All of them; a row that is measured on another's model comes after it."""
    places = {"work": f"{FOLDER}/image_encoder", "checkpoint": ENCODER}
    yield Recipe("vtok-image-encoder", "train_image_encoder", places, "toy", ENCODER, hours=0.2)
    read = {"encoder": ENCODER, "per_clip": "results/per_clip"}
    stills = {**read, "work": f"{FOLDER}/stills", "checkpoint": STILLS}
    learnt = {"image_encoder": ENCODER}
    yield Recipe("vtok-stills", "vtok_stills", stills, "toy", STILLS, ("vtok-image-encoder",), learnt, hours=0.2)
    for seed in SEEDS:
        for row in ROWS:
            start = model_of(row.swap_of, seed) if row.swap_of else STILLS
            outcome = model_of(row.name, seed)
            places = {"start": start, "work": f"{FOLDER}/understanding/{row.name}-{seed}", "checkpoint": outcome}
            settings = {**read, **row.settings(), "seed": seed, **places}
            needs = (name_of(row.swap_of, seed) if row.swap_of else "vtok-stills",)
            name, parents = name_of(row.name, seed), {**learnt, "start": start}
            yield Recipe(name, "vtok_understanding", settings, "toy", outcome, needs, parents)


def name_of(row: str, seed: int) -> str:
    """The recipe of a row (see `evatok.reporting.vtok_rows.ROWS`) with a seed."""
    return f"vtok-{row}-{seed}"


def model_of(row: str, seed: int) -> str:
    """The trained model of a row."""
    return f"{FOLDER}/models/{row}-{seed}.safetensors"
