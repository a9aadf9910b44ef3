"""Recipes of VTok's Tables 3 to 5 and two more: image encoder, stage A on stills, then rows by seed."""

from __future__ import annotations

from collections.abc import Iterator

from evatok.experiments.recipe import CHECKPOINTS, WORK, Recipe
from evatok.reporting.vtok_rows import FAMILIES, SEEDS, RowSpec

ENCODER = f"{CHECKPOINTS}/vtok-image-encoder-toy.safetensors"
STILLS = f"{CHECKPOINTS}/vtok-stills-toy.safetensors"
FOLDER = f"{WORK}/vtok"
_READ = {"encoder": ENCODER, "per_clip": "results/per_clip"}
_LEARNT = {"image_encoder": ENCODER}


def recipes() -> Iterator[Recipe]:
    """Return all of them; a row measured on another's model comes after it."""
    places = {"work": f"{FOLDER}/image_encoder", "checkpoint": ENCODER}
    yield Recipe("vtok-image-encoder", "train_image_encoder", places, "toy", ENCODER, hours=0.2)
    stills = {**_READ, "work": f"{FOLDER}/stills", "checkpoint": STILLS}
    yield Recipe("vtok-stills", "vtok_stills", stills, "toy", STILLS, ("vtok-image-encoder",), _LEARNT, hours=0.2)
    for seed in SEEDS:
        for family, held in FAMILIES.items():
            yield from (_row(row, seed, family) for row in held.specs.values())


def name_of(row: str, seed: int, family: str = "") -> str:
    """Name the recipe of a row with a seed, in a family of `evatok.reporting.vtok_rows.FAMILIES`."""
    return f"vtok{'_' * bool(family)}{family}-{row}-{seed}"


def model_of(row: str, seed: int, family: str = "") -> str:
    """Return the trained model of a row."""
    return f"{FOLDER}/models/{_file(row, seed, family)}.safetensors"


def _row(row: RowSpec, seed: int, family: str) -> Recipe:
    start = model_of(row.swap_of, seed, family) if row.swap_of else STILLS
    outcome = model_of(row.name, seed, family)
    places = {"start": start, "work": f"{FOLDER}/understanding/{_file(row.name, seed, family)}", "checkpoint": outcome}
    settings = {**_READ, **row.settings(), "seed": seed, **places}
    needs = (name_of(row.swap_of, seed, family) if row.swap_of else "vtok-stills",)
    parents = {**_LEARNT, "start": start}
    return Recipe(name_of(row.name, seed, family), "vtok_understanding", settings, "toy", outcome, needs, parents)


def _file(row: str, seed: int, family: str) -> str:
    return f"{family}-{row}-{seed}" if family else f"{row}-{seed}"
