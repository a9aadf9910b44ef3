"""Recipes of the shipped artefacts: which experiment makes each, with which settings, and from which others.

A recipe is a command line as data. `python -m evatok.experiments.make` runs those that an artefact needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evatok.experiments import (
    image_recipes,
    scratch_recipes,
    videoflextok_generators,
    videoflextok_recipes,
    vtok_generation_recipes,
    vtok_recipes,
)
from evatok.experiments.recipe import CHECKPOINTS, TABLES, WORK, Recipe, RecipeError

__all__ = ["Recipe", "RecipeError", "every_recipe", "groups", "wanted"]

FIGURES = "results/figures"
RULES = ("uniform", "router")
PROXY = f"{CHECKPOINTS}/proxy-toy-motion.safetensors"
MATCHED = f"{CHECKPOINTS}/router-toy-pyramid-matched.safetensors"
TRAIN_TABLE = f"{WORK}/embedded/train.parquet"
ALIGNED = {"alignment": f"{CHECKPOINTS}/videomae-toy", "alignment_weight": 0.1}
CURVE_METRICS = "psnr,l1,st_lpips_alex,rfvd"
ALL_METRICS = "psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd"

SCORED = {
    "freedoom-validation": ("freedoom", "validation", 320),
    "freedoom-test": ("freedoom", "test", 320),
    "arcade-seen-validation": ("arcade-seen", "validation", 320),
    "arcade-held-out-validation": ("arcade-held-out", "validation", 320),
    "freedoom-train": ("freedoom", "train", 3072),
}
"""Candidate tables: data, split, clips."""

POINTS: dict[str, dict[str, Any]] = {
    "matched": {"token_share": 0.704},
    "wq1.2": {"token_share": 0.0},
    "st-lpips": {"token_share": 0.0, "metric": "st-lpips"},
}
"""Operating points of Table 3: the w_q that saves what the paper's router saves, and the paper's w_q, both with L1 for
quality; and the paper's w_q with ST-LPIPS, the nearest to its LPIPS."""

FURTHER_POINTS = (("pyramid", 0.8), ("pyramid", 1.4), ("pyramid", 1.8), ("pyramid", 1.9), ("hard", 1.9))
"""Further routers of main Fig. 4, by kind and w_q: those of 1.9 reach the tokens of the fixed-length baseline."""

ROUTERS: dict[str, dict[str, Any]] = {
    "hard": {"target": "hard", "steps": 1000},
    "soft": {"target": "soft", "steps": 1000},
    "pyramid": {
        "router": "pyramid",
        "target": "soft",
        "steps": 3000,
        "batch": 64,
        "learning_rate": 1e-3,
        "dropout": 0.2,
        "save_every": 500,
    },
    "features": {"router": "features", "target": "soft", "steps": 1500, "learning_rate": 2e-3},
}


def every_recipe() -> dict[str, Recipe]:
    """All recipes by name, what is needed first."""
    made = [
        Recipe("proxy-toy-motion", "stage1_proxy", outcome=PROXY, hours=2.5),
        *map(_scores, SCORED),
        *(_router(kind, point) for point in POINTS for kind in ROUTERS),
        *(_router(kind, f"wq{w_q}", {"token_share": 0.0, "w_q": w_q}) for kind, w_q in FURTHER_POINTS),
        *_proxy_figures(),
        *_quantisers(),
        *(final for seed in range(3) for final in _finals(seed)),
        *_motions_seen(),
        *_generators(),
        *videoflextok_recipes.recipes(),
        *videoflextok_generators.recipes(),
        *vtok_recipes.recipes(),
        *vtok_generation_recipes.recipes(),
        *image_recipes.recipes(),
        *scratch_recipes.recipes(),
    ]
    return {recipe.name: recipe for recipe in made}


def groups() -> dict[str, tuple[str, ...]]:
    """Names of several recipes at once: what a table or figure reads."""
    known = every_recipe()

    def named(*beginnings: str) -> tuple[str, ...]:
        return tuple(name for name in known if name.startswith(beginnings))

    return {
        "table3": named("scores-", "router-"),
        "curves": named("evaluate-proxy-", "curves"),
        "quantisers": named("quantiser-", "evaluate-quantiser-"),
        "finals": named("final-", "evaluate-final-", "classes-seen-final-"),
        "generators": named("generator-", "sample-"),
        **videoflextok_recipes.groups(),
        **videoflextok_generators.groups(),
        "vtok": named("vtok-"),
        "vtok-generation": named("vtok_generation-"),
        "images": named("image-", "evaluate-image-"),
        "scratch": named("scratch-"),
        "all": tuple(name for name in known if not name.startswith("scratch-")),
    }


def wanted(names: Iterable[str]) -> list[Recipe]:
    """The recipes of these names and groups, with all that they need, in an order in which they can be run.

    Raises:
        RecipeError: a name that is neither.
    """
    known, of_group = every_recipe(), groups()
    order: dict[str, Recipe] = {}

    def add(name: str) -> None:
        for need in known[name].needs:
            add(need)
        order.setdefault(name, known[name])

    for name in names:
        if name not in known and name not in of_group:
            raise RecipeError(f"no recipe or group called {name!r}; --list shows them")
        for member in of_group.get(name, (name,)):
            add(member)
    return list(order.values())


def _scores(name: str) -> Recipe:
    data, split, clips = SCORED[name]
    outcome = TRAIN_TABLE if split == "train" else f"{TABLES}/{name}.parquet"
    return Recipe(
        f"scores-{name}",
        "stage2_curation",
        {"shard_length": 32, "data": data, "split": split, "clips": clips, "table": outcome},
        outcome=outcome,
        needs=("proxy-toy-motion",),
        parents={"tokenizer": PROXY},
        processes=2,
        hours=clips * 2 / 3600,
    )


def _router(kind: str, point: str, weights: Mapping[str, Any] | None = None) -> Recipe:
    outcome = f"{CHECKPOINTS}/router-toy-{kind}-{point}.safetensors"
    places = {"work": f"{WORK}/embedded/router-{kind}-{point}", "checkpoint": outcome}
    tables = {"train_table": TRAIN_TABLE, "validation_table": f"{TABLES}/freedoom-validation.parquet"}
    return Recipe(
        f"router-toy-{kind}-{point}",
        "stage3_router",
        {**ROUTERS[kind], **(weights or POINTS[point]), **places},
        outcome=outcome,
        needs=("scores-freedoom-train", "scores-freedoom-validation"),
        parents={"tokenizer": PROXY, **tables},
    )


def _proxy_figures() -> Iterable[Recipe]:
    """Evaluations of the proxy, and the curves of main Figures 4 and 5."""
    by_router = f"router:{MATCHED}"
    for name, assignment, protocol in (
        ("32", "uniform:32", "embedded-reconstruction"),
        ("64", "uniform:64", "embedded-reconstruction"),
        ("routed", by_router, "embedded-reconstruction"),
        ("games-uniform", "uniform:64", "embedded-unseen"),
        ("games-router", by_router, "embedded-unseen"),
    ):
        settings = {
            "assignment": assignment,
            "protocol": protocol,
            "checkpoint": PROXY,
            "metrics": ALL_METRICS,
            "work": f"{WORK}/embedded/evaluate",
        }
        needs = ("router-toy-pyramid-matched",) if assignment == by_router else ("proxy-toy-motion",)
        yield Recipe(f"evaluate-proxy-{name}", "evaluate", settings, "", needs=needs)
    routers = tuple(f"router-toy-{kind}-{point}" for kind in ROUTERS for point in ("matched", "wq1.2"))
    further = tuple(f"router-toy-{kind}-wq{w_q}" for kind, w_q in FURTHER_POINTS)
    for name in SCORED:
        if not name.endswith("-train"):
            settings = {"table": f"{TABLES}/{name}.parquet", "metrics": CURVE_METRICS}
            yield Recipe(f"curves-{name}", "curves", settings, needs=(*routers, *further, f"scores-{name}"), hours=0.5)


def _quantisers() -> Iterable[Recipe]:
    """Two short proxies that differ in their quantiser, with the codes they use."""
    kinds: dict[str, dict[str, Any]] = {
        "vq": {"quantiser": "vq", "codebook_size": 4096, "entropy_weight": 0.02},
        "fsq": {},
    }
    for kind, settings in kinds.items():
        work = f"{WORK}/quantisers/{kind}"
        trained = {**settings, "steps": 600, "work": work, "checkpoint": f"{work}.safetensors"}
        yield Recipe(f"quantiser-{kind}", "stage1_proxy", trained, outcome=f"{work}.safetensors", hours=0.3)
        measured = {
            "checkpoint": f"{work}.safetensors",
            "assignment": "uniform:64",
            "metrics": "psnr,st_lpips_alex",
            "work": f"{WORK}/quantisers/evaluate",
        }
        yield Recipe(f"evaluate-quantiser-{kind}", "evaluate", measured, "", needs=(f"quantiser-{kind}",))


def _finals(seed: int) -> Iterable[Recipe]:
    """Final tokenizers of main Tables 1 and 5 with their evaluations; of further seeds those that claims rest on."""
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
    """How often a classifier names the motion in reconstructions by the finals that ship."""
    for rule, assignment in (("uniform", "uniform:64"), ("router", f"router:{MATCHED}")):
        settings = {"checkpoint": f"{CHECKPOINTS}/final-toy-{rule}.safetensors", "assignments": [assignment]}
        needs = (f"final-{rule}-semantic-0",)
        yield Recipe(f"classes-seen-final-{rule}", "classes_seen", settings, "", needs=needs, hours=0.05)


def _generators() -> Iterable[Recipe]:
    """Generators of main Tables 2 to 4 and of class consistency, with their samples, of several seeds for an interval.

    Those called `longer` are trained for as many tokens as the fixed ones, at the 0.70 of the tokens of their router.
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
