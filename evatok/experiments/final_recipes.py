"""Recipes of main Tables 1 to 5 and supplement Table 1: final tokenizers, their measurements, generators, samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evatok.experiments.recipe import ALL_METRICS, CHECKPOINTS, MATCHED, PROXY, WORK, Recipe

FIGURES = "results/figures"
RULES = ("uniform", "router")
SEEDS = range(3)
ALIGNED = {"alignment": f"{CHECKPOINTS}/videomae-toy", "alignment_weight": 0.1}


def recipes() -> Iterable[Recipe]:
    """Return all of them, prerequisites first."""
    for seed in SEEDS:
        yield from _finals(seed)
    yield from _motions_seen()
    yield from _generators()


def groups() -> dict[str, tuple[str, ...]]:
    """Group finals with their measurements, and generators with their samples."""
    names = [recipe.name for recipe in recipes()]
    written = tuple(name for name in names if name.startswith(("generator-", "sample-")))
    return {"finals": tuple(name for name in names if name not in written), "generators": written}


def _finals(seed: int) -> Iterable[Recipe]:
    """Final tokenizers of main Tables 1 and 5 with their evaluations; further seeds only where claims need them."""
    rows: dict[str, dict[str, Any]] = {
        "random-transformer": {"assignment": "random", "discriminator": "transformer"},
        "uniform-transformer": {"assignment": "uniform", "discriminator": "transformer"},
        "router-transformer": {"assignment": "router", "discriminator": "transformer"},
        "uniform-semantic": {"assignment": "uniform", "discriminator": "semantic"},
        "router-semantic": {"assignment": "router", "discriminator": "semantic"},
        "uniform-transformer-aligned": {"assignment": "uniform", "discriminator": "transformer", **ALIGNED},
        "uniform-semantic-aligned": {"assignment": "uniform", "discriminator": "semantic", **ALIGNED},
    }
    shipped = {"uniform-semantic": "final-toy-uniform", "router-semantic": "final-toy-router"}
    for row, settings in rows.items():
        if seed and (row.endswith("-aligned") or row.startswith("random")):
            continue
        name = f"final-{row}-{seed}"
        work = f"{WORK}/finals/{name}"
        outcome = f"{CHECKPOINTS}/{shipped[row]}.safetensors" if row in shipped and not seed else f"{work}.safetensors"
        places = {"work": work, "checkpoint": outcome, "router": MATCHED}
        trained = {**settings, "seed": seed, **places}
        needs = ("router-toy-pyramid-matched",)
        parents = {"start": PROXY, **({"router": MATCHED} if settings["assignment"] == "router" else {})}
        yield Recipe(name, "stage4_final", trained, "embedded", outcome, needs, parents, hours=0.6)
        uniform, routed = ("uniform", "uniform:64"), ("router", f"router:{MATCHED}")
        rules = [routed] if row.startswith("router") else [uniform]
        for rule, assignment in [uniform, routed] if row.startswith("random") else rules:
            for where in ("", "-unseen"):
                measured = {
                    "checkpoint": outcome,
                    "assignment": assignment,
                    "protocol": f"embedded{where or '-reconstruction'}",
                    "metrics": ALL_METRICS,
                    "work": f"{WORK}/finals/evaluate",
                    "show": 6,
                    "output": f"{FIGURES if outcome.startswith(CHECKPOINTS) else WORK}/clips/{name}-{rule}{where}",
                }
                yield Recipe(f"evaluate-{name}-{rule}{where}", "evaluate", measured, "", needs=(name,), hours=0.07)


def _motions_seen() -> Iterable[Recipe]:
    """How often a classifier recognises the motion in reconstructions by the shipped finals."""
    for rule, assignment in (("uniform", "uniform:64"), ("router", f"router:{MATCHED}")):
        settings = {"checkpoint": f"{CHECKPOINTS}/final-toy-{rule}.safetensors", "assignments": [assignment]}
        needs = (f"final-{rule}-semantic-0",)
        yield Recipe(f"classes-seen-final-{rule}", "classes_seen", settings, "", needs=needs, hours=0.05)


def _generators() -> Iterable[Recipe]:
    """Generators of main Tables 2 to 4 and of class consistency, with their samples; several seeds for an interval.

    Those named `longer` are trained on as many tokens as the fixed ones, at 0.70 of their tokens per clip, the router's
    share.
    """
    games = {"data": "arcade-seen", "label": "game", "task": "class"}
    tasks: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "class": ({"task": "class", "steps": 600}, RULES),
        "class-longer": ({"task": "class", "steps": 850}, ("router",)),
        "frames": ({"task": "frames", "steps": 300}, RULES),
        "frames-row": ({"task": "frames", "steps": 300, "given": "row", "uniform_tokens": 64}, ("router",)),
        "games": ({**games, "steps": 600}, RULES),
    }
    for task, (taught, rules) in tasks.items():
        for rule in rules:
            yield from _generator(task, rule, taught)


def _generator(task: str, rule: str, taught: Mapping[str, Any]) -> Iterable[Recipe]:
    name = f"{task}-{rule}"
    outcome = f"{CHECKPOINTS}/generator-toy-{name}.safetensors"
    tokenizer = PROXY if task == "games" else f"{CHECKPOINTS}/final-toy-{rule}.safetensors"
    common = {"router": MATCHED, "tokenizer": tokenizer}
    trained = {**taught, **common, "assignment": rule, "train_clips": 4800}
    places = {"work": f"{WORK}/generator-{name}", "checkpoint": outcome}
    needs = ("router-toy-pyramid-matched",) if task == "games" else (f"final-{rule}-semantic-0",)
    parents = {"tokenizer": tokenizer, **({"router": MATCHED} if rule == "router" else {})}
    settings = {**trained, **places}
    yield Recipe(f"generator-{name}", "stage5_generator", settings, "toy", outcome, needs, parents, hours=0.3)
    guided = [("", 1.0, range(3))] if task.startswith("frames") else [("", 1.0, range(3)), ("guided-", 2.5, range(1))]
    for way, guidance, seeds in guided:
        for seed in seeds:
            folder = f"{WORK}/samples-{name}-{way}{seed}"
            sampled: dict[str, Any] = {**common, "generator": outcome, "work": folder, "output": f"{folder}/shown"}
            sampled |= {"guidance": guidance, "seed": seed}
            if task == "games":
                classifier = f"{CHECKPOINTS}/classifier-toy-games.safetensors"
                sampled |= {"protocol": "embedded-games-generation", "classifier": classifier}
            yield Recipe(f"sample-{name}-{way}{seed}", "sample", sampled, "", needs=(f"generator-{name}",), hours=0.05)
