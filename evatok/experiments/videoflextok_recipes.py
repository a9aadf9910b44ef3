"""Recipes of VideoFlexTok at toy size: the shipped tokenizer, its controls, both second stages, their evaluations.

The shipped tokenizer is trained long; rows of a table are trained for equal, fewer steps with several seeds each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evatok.experiments.recipe import CHECKPOINTS, PROXY, WORK, Recipe

BASE = f"{CHECKPOINTS}/videoflextok-toy-stage1-base.safetensors"
BASE_GRID = f"{CHECKPOINTS}/videoflextok-toy-stage1-grid.safetensors"
SECOND = f"{CHECKPOINTS}/videoflextok-toy-stage2-full.safetensors"
FOLDER = f"{WORK}/videoflextok"
SHIPPED_ROWS = ("2d",)
"""Rows whose tokenizer of seed 0 is shipped, as generators of several seeds learn its codes."""

SEEDS = (0, 1, 2)
LONG_STEPS, ROW_STEPS, SECOND_STEPS = 10000, 2000, 1000
"""Steps of the shipped tokenizer and its 3D grid, of every row of a table, and of both second stages."""

ROWS: dict[str, dict[str, Any]] = {
    "2d": {},
    "flat": {"form": "flat"},
    "full": {"decoder_mask": "full"},
    "all": {"kept": "all"},
    "unaligned": {"alignment": "none"},
    "grid": {"form": "grid"},
}
"""Tokenizers of stage 1: ours, controls of Tables 2 and 3, ours without nested dropout, Figure 9's, the 3D grid."""

TABLES = {"2d": "table2-table3", "flat": "table2", "full": "table3"}
FIGURES = {"2d": "figure9-figure10", "full": "figure10", "unaligned": "figure9"}
"""Tables and figures each row appears in."""

ONE_SEED = ("all", "unaligned", "grid")
"""Rows that no multi-seed claim depends on."""

LEVELS = (0, 1, 2, 4, 8, 16)
FEW = (1, 4, 16)
SAMPLED, ONE_STEP = 20, 1
FURTHER_STEPS = (2, 5, 10, 40)
"""Flow steps of Figure 12, beside those of Figure 2."""

CODEBOOK = 4375
"""The paper has 64,000 codes; a softmax over so many would cost a toy generator five times its trunk."""

_COMMON = {"threads": 1}
_STORED = {**_COMMON, "alignment_stored": True, "codebook_size": CODEBOOK}
WITH_FVD, PIXELS = "psnr,l1,rfvd", "psnr,l1"


def recipes() -> Iterator[Recipe]:
    """Return all of them, prerequisites first."""
    yield _stage1("base", "base", {"steps": LONG_STEPS}, BASE, hours=0.5)
    yield _stage1("base-grid", "base-grid", {"form": "grid", "steps": LONG_STEPS}, BASE_GRID, hours=0.5)
    yield from _systems()
    yield from _rows()
    yield from _second_stages()
    yield from _figures()


def groups() -> dict[str, tuple[str, ...]]:
    """Name the recipes that each table or figure reads."""
    names = [recipe.name for recipe in recipes()]

    def ending(*words: str) -> tuple[str, ...]:
        return tuple(name for name in names if any(f"-{word}-" in f"{name}-" for word in words))

    return {
        "videoflextok": tuple(names),
        "videoflextok-tables": ending("table1", "table2", "table3"),
        "videoflextok-controls": ending("controls", "figure9", "figure10"),
        "videoflextok-figures": ending("figure2", "figure12", "long", "shown", "transfer", "table8", "stage2-full-0"),
        "videoflextok-stage2": ending("stage2"),
    }


def _systems() -> Iterator[Recipe]:
    """Evaluations of both tokenizers that are trained long, at the tokens Table 1 generates."""
    for tokens in (4, 16):
        yield _evaluate("table1", "base", BASE, tokens, SAMPLED, WITH_FVD)
    yield _evaluate("table1-grid", "base-grid", BASE_GRID, 16, SAMPLED, WITH_FVD)


def _rows() -> Iterator[Recipe]:
    """Rows of Tables 2 and 3 and the further controls, each with its evaluations."""
    for seed in SEEDS:
        for row, keys in ROWS.items():
            if seed and row in ONE_SEED:
                continue
            name = f"row-{row}-{seed}"
            outcome = row_of(row, seed)
            yield _stage1(name, name, {**keys, "steps": ROW_STEPS, "seed": seed}, outcome, hours=0.1)
            of_tables = TABLES.get(row, "controls")
            for steps, metrics in ((SAMPLED, WITH_FVD), (ONE_STEP, PIXELS)):
                yield _evaluate(f"{of_tables}-{row}-{seed}", name, outcome, 16, steps, metrics)
            if not seed and row != "grid":
                for tokens in (1, 4):
                    yield _evaluate(f"{FIGURES.get(row, 'controls')}-{row}", name, outcome, tokens, SAMPLED, WITH_FVD)


def row_of(row: str, seed: int = 0) -> str:
    """Return the tokenizer of a row."""
    if row in SHIPPED_ROWS and not seed:
        return f"{CHECKPOINTS}/videoflextok-toy-row-{row}.safetensors"
    return f"{FOLDER}/row-{row}-{seed}.safetensors"


def _second_stages() -> Iterator[Recipe]:
    """Full attention and its causal control on one frozen encoder, for equally many steps."""
    for seed in SEEDS:
        for mask in ("full", "causal"):
            name = f"stage2-{mask}-{seed}"
            outcome = SECOND if (mask, seed) == ("full", 0) else f"{FOLDER}/{name}.safetensors"
            settings = {
                **_COMMON,
                "tokenizer": BASE,
                "decoder_mask": mask,
                "steps": SECOND_STEPS,
                "seed": seed,
                "work": f"{FOLDER}/{name}",
                "checkpoint": outcome,
            }
            parents = {"tokenizer": BASE}
            needs = ("videoflextok-base",)
            yield Recipe(
                f"videoflextok-{name}", "videoflextok_stage2", settings, "toy", outcome, needs, parents, hours=0.05
            )
            for tokens in FEW:
                yield _evaluate(name, name, outcome, tokens, SAMPLED, WITH_FVD)


def _figures() -> Iterator[Recipe]:
    """Points of Figures 2 and 12 of the shipped tokenizer, the rival of Table 8, and long clips."""
    for steps in (SAMPLED, ONE_STEP):
        for tokens in LEVELS:
            if not (tokens in FEW and steps == SAMPLED):  # those belong to stage 2
                yield _evaluate("figure2", "stage2-full-0", SECOND, tokens, steps, WITH_FVD)
            yield _evaluate("figure2-features", "stage2-full-0", SECOND, tokens, steps, "", "embedded-features")
    for steps in FURTHER_STEPS:
        for tokens in FEW:
            yield _evaluate("figure12", "stage2-full-0", SECOND, tokens, steps, WITH_FVD)
    rival = {**_COMMON, "checkpoint": PROXY, "assignment": "uniform:16", "metrics": WITH_FVD, "work": f"{FOLDER}/rival"}
    yield Recipe("videoflextok-table8-rival", "evaluate", rival, "", needs=("proxy-toy-motion",))
    long = {**_COMMON, "tokenizer": SECOND, "frames": 64, "kept": [1, 4, 16]}
    transfer = {**_COMMON, "tokenizer": SECOND, "kept": [1, 2, 4], "output": f"{FOLDER}/transfer"}
    needs = ("videoflextok-stage2-full-0",)
    shown = {**_COMMON, "tokenizer": SECOND, "shown": "results/samples/videoflextok-reconstructed.npz"}
    yield Recipe("videoflextok-shown", "videoflextok_shown", shown, "toy", needs=needs, hours=0.01)
    yield Recipe("videoflextok-transfer", "videoflextok_transfer", transfer, "toy", needs=needs)
    yield Recipe("videoflextok-long", "videoflextok_long", long, "toy", needs=("videoflextok-stage2-full-0",))


def _stage1(name: str, work: str, keys: dict[str, Any], outcome: str, hours: float) -> Recipe:
    settings = {**_STORED, **keys, "work": f"{FOLDER}/{work}", "checkpoint": outcome}
    return Recipe(f"videoflextok-{name}", "videoflextok_stage1", settings, "toy", outcome, hours=hours)


def _evaluate(
    group: str,
    of: str,
    checkpoint: str,
    tokens: int,
    steps: int,
    metrics: str,
    protocol: str = "embedded-reconstruction",
) -> Recipe:
    settings = {
        **_COMMON,
        "protocol": protocol,
        "checkpoint": checkpoint,
        "assignment": f"uniform:{tokens}",
        "flow_steps": steps,
        "metrics": metrics,
        "work": f"{FOLDER}/evaluate",
    }
    name = f"videoflextok-{group}-k{tokens}-steps{steps}"
    hours = 0.05 if "rfvd" in metrics else 0.02
    return Recipe(name, "evaluate", settings, "", needs=(f"videoflextok-{of}",), hours=hours)
