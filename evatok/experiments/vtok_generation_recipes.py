"""Recipes of VTok's generation tables: one decoder, a writer for each row and seed, and their judged samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evatok.experiments.recipe import Recipe
from evatok.experiments.vtok_recipes import ENCODER, FOLDER, STILLS, model_of, name_of
from evatok.reporting.vtok_generated import MADE, MadeSpec
from evatok.reporting.vtok_rows import JUDGE_SEED, LONGER_BY_NAME, SEEDS

PREFIX = "vtok_generation"
DECODER = f"{FOLDER}/decoder/decoder.safetensors"
JUDGE = f"{FOLDER}/models/judge.safetensors"
WITH_FVD = ("none", "frames8", "vtok")
"""Rows of Table 2; gFVD only of the first seed, as I3D takes ten times as long as drawing a sample."""

_HOURS = {"frames": 0.6, "vtok": 0.3, "lavit": 0.4, "omni": 0.4}
"""Of a writer's training; longer sequences take longer."""


def recipes() -> Iterator[Recipe]:
    """Return all of them; the first seed of every row before the second."""
    places = {"encoder": ENCODER, "work": f"{FOLDER}/decoder", "checkpoint": DECODER}
    learnt = {"image_encoder": ENCODER}
    needs = ("vtok-image-encoder",)
    yield Recipe(f"{PREFIX}-decoder", "vtok_decoder", places, "toy", DECODER, needs, learnt, hours=1.8)
    yield _judge(learnt)
    for seed in SEEDS:
        for row in MADE:
            needs = (f"{PREFIX}-decoder",)
            if row.tokens == "written":
                yield _writer(row, seed)
                needs = (f"{PREFIX}-writer-{row.name}-{seed}",)
            extra = (f"{PREFIX}-judge",) if row.name == "vtok" else ()
            settings = _sampling(row, seed)
            hours = 0.9 if settings["fvd"] else 0.1
            yield Recipe(align_of(row.name, seed), "vtok_align", settings, "toy", needs=(*needs, *extra), hours=hours)


def align_of(row: str, seed: int) -> str:
    """Return the recipe of a row's samples (see `evatok.reporting.vtok_generated.MADE`) with a seed."""
    return f"{PREFIX}-align-{row}-{seed}"


def _writer(row: MadeSpec, seed: int) -> Recipe:
    """Train the stage B model of the same strategy to write."""
    outcome, start = _file(row, seed), model_of(row.strategy_of, seed)
    places = {"work": f"{FOLDER}/writers/{row.name}-{seed}", "checkpoint": outcome, "start": start}
    settings = {"encoder": ENCODER, "decoder": DECODER, **row.settings(), "seed": seed, **places}
    parents = {"image_encoder": ENCODER, "decoder": DECODER, "start": start}
    needs = (name_of(row.strategy_of, seed), f"{PREFIX}-decoder")
    name = f"{PREFIX}-writer-{row.name}-{seed}"
    return Recipe(name, "vtok_generation", settings, "toy", outcome, needs, parents, hours=_HOURS[row.strategy.kind])


def _judge(learnt: dict[str, str]) -> Recipe:
    """The most accurate reader of real clips: differences to the previous frame, and the longer training."""
    places = {"start": STILLS, "work": f"{FOLDER}/understanding/judge", "checkpoint": JUDGE}
    row = LONGER_BY_NAME["previous"].settings()
    settings = {"encoder": ENCODER, **row, "seed": JUDGE_SEED, **places, "per_clip": ""}
    parents = {**learnt, "start": STILLS}
    return Recipe(f"{PREFIX}-judge", "vtok_understanding", settings, "toy", JUDGE, ("vtok-stills",), parents, hours=0.3)


def _sampling(row: MadeSpec, seed: int) -> dict[str, Any]:
    told = {"writer": _file(row, seed)} if row.tokens == "written" else row.settings()
    first = row.name in WITH_FVD and seed == SEEDS[0]
    read = {"encoder": ENCODER, "decoder": DECODER, "seed": seed, "fvd": first}
    shown = f"results/samples/vtok-{row.name}.npz" if first else ""
    judge = {"second_judge": JUDGE} if row.name == "vtok" else {}
    return {**read, **told, **judge, "shown": shown, "work": f"{FOLDER}/align", "per_clip": "results/per_clip"}


def _file(row: MadeSpec, seed: int) -> str:
    return f"{FOLDER}/writers/{row.name}-{seed}.safetensors"
