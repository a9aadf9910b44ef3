"""Every measurement by name, and the running of them: one that fails is a row with its reason, not the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from benchmarks import clips, curation, generating, growth, kernels, networks, search, tokenizing
from benchmarks.ratios import Ratio
from benchmarks.setting import Setting

Measurement = Callable[[Setting], list[Ratio]]

MEASUREMENTS: dict[str, Measurement] = {
    "video_decode": clips.decoding,
    "embedded_clips": clips.embedded,
    "encode": tokenizing.encoding,
    "decode": tokenizing.decoding,
    "training_step": tokenizing.training,
    "router": tokenizing.routing,
    "bf16": kernels.precision,
    "attention": kernels.attention,
    "compile": kernels.compiled,
    "growth": growth.growth,
    "i3d": networks.i3d,
    "i3d_bf16": networks.i3d_precision,
    "lpips": networks.lpips_vgg,
    "lpips_bf16": networks.lpips_precision,
    "frechet": networks.frechet,
    "generator_cache": generating.sampling,
    "generator_adaptive_few": generating.few_at_once,
    "generator_adaptive_many": generating.many_at_once,
    "tree_search": search.tree_against_brute,
    "beam_search": search.beam_against_tree,
    "beam_percentile": search.beam_percentile,
    "chunked_search": search.chunked_against_length,
    "branch_and_bound": search.branch_and_bound,
    "stage2": curation.projection,
}
OPTIONAL = {"compile"}
"""Measured only where a setting asks for it."""
ON_CPU = {"generator_adaptive_many"}
"""Measured on a CPU alone: the cache of so many sequences of the paper's size would not fit a GPU."""


@dataclass(frozen=True)
class Failure:
    """A measurement that did not come about, and why, in a line."""

    row: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """What a run of measurements gave; `seconds` is how long each of them took."""

    ratios: list[Ratio]
    failures: list[Failure]
    seconds: dict[str, float]


def names(setting: Setting) -> list[str]:
    """The measurements a setting asks for."""
    left_out = (set() if setting.compiled else OPTIONAL) | (set() if setting.device == "cpu" else ON_CPU)
    return [name for name in MEASUREMENTS if name not in left_out]


def measure(setting: Setting, wanted: Iterable[str] | None = None) -> Measured:
    """Measure one after the other. Raises ValueError for a name that is none."""
    chosen = names(setting) if wanted is None else list(wanted)
    unknown = [name for name in chosen if name not in MEASUREMENTS]
    if unknown:
        raise ValueError(f"no measurement called {', '.join(unknown)}: choose among {', '.join(MEASUREMENTS)}")
    whole = Measured([], [], {})
    with tqdm(chosen, desc="measurements", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            begun = time.monotonic()
            found = one(name, setting)
            whole.seconds[name] = time.monotonic() - begun
            if isinstance(found, Failure):
                whole.failures.append(found)
            else:
                whole.ratios.extend(found)
    return whole


def one(name: str, setting: Setting) -> list[Ratio] | Failure:
    """One measurement, or why there is none; a GPU's memory is given back behind it."""
    try:
        return MEASUREMENTS[name](setting)
    except Exception as error:
        told = (str(error) or "no message").splitlines()[0]
        return Failure(name, f"{type(error).__name__}: {told}")
    finally:
        if setting.device == "cuda":
            torch.cuda.empty_cache()
