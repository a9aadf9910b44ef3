"""Registry of measurements, and running them: a failure becomes a row with its reason, and the others still run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from benchmarks import (
    clips,
    curation,
    flexible,
    generating,
    growth,
    kernels,
    loading,
    networks,
    peers,
    routers,
    search,
    tokenizing,
)
from benchmarks.ratios import Ratio
from benchmarks.setting import Setting

Measurement = Callable[[Setting], list[Ratio]]

MEASUREMENTS: dict[str, Measurement] = {
    "video_decode": clips.decoding,
    "embedded_clips": clips.embedded,
    "many_files": loading.many_files,
    "encode": tokenizing.encoding,
    "decode": tokenizing.decoding,
    "training_step": tokenizing.training,
    "freed_memory": tokenizing.memory,
    "router": routers.routing,
    "table3_rankings": routers.ranking,
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
    "generator_bf16": generating.precision,
    "generator_refills": generating.refills,
    "generator_batch": generating.batches,
    "generator_adaptive_few": generating.few_at_once,
    "generator_adaptive_many": generating.many_at_once,
    "flextok_encode": flexible.encoding,
    "flextok_decode": flexible.decoding,
    "flextok_sampling": flexible.sampling,
    "tree_search": search.tree_against_brute,
    "beam_search": search.beam_against_tree,
    "beam_percentile": search.beam_percentile,
    "chunked_search": search.chunked_against_length,
    "branch_and_bound": search.branch_and_bound,
    "stage2": curation.projection,
    "peer_lpips": peers.lpips_package,
    "peer_ssim": peers.torchmetrics_ssim,
    "peer_fid": peers.torch_fidelity_fid,
    "peer_vq": peers.vector_quantize,
    "peer_generate": peers.transformers_generate,
}
OPTIONAL = {"compile"}
"""Measured only on request."""
ON_CPU = {"generator_adaptive_many", "generator_bf16", "generator_refills", "generator_batch"}
"""Measured only on a CPU: at paper size the KV cache of so many sequences would not fit a GPU, and there weights are
in bfloat16 anyway."""


@dataclass(frozen=True)
class Failure:
    """A failed measurement and the reason, in one line."""

    row: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """Results of a run; `seconds` is the wall time of each measurement."""

    ratios: list[Ratio]
    failures: list[Failure]
    seconds: dict[str, float]


def names(setting: Setting) -> list[str]:
    """Names of the measurements of a setting."""
    left_out = (set() if setting.compiled else OPTIONAL) | (set() if setting.device == "cpu" else ON_CPU)
    return [name for name in MEASUREMENTS if name not in left_out]


def measure(setting: Setting, only: Iterable[str] | None = None) -> Measured:
    """Run the measurements one after the other. Raises ValueError for an unknown name."""
    chosen = names(setting) if only is None else list(only)
    unknown = [name for name in chosen if name not in MEASUREMENTS]
    if unknown:
        raise ValueError(f"no measurement called {', '.join(unknown)}: choose among {', '.join(MEASUREMENTS)}")
    measured = Measured([], [], {})
    with tqdm(chosen, desc="measurements", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            started = time.monotonic()
            result = one(name, setting)
            measured.seconds[name] = time.monotonic() - started
            if isinstance(result, Failure):
                measured.failures.append(result)
            else:
                measured.ratios.extend(result)
    return measured


def one(name: str, setting: Setting) -> list[Ratio] | Failure:
    """Run one measurement; returns its ratios or the failure, and frees a GPU's memory after it."""
    try:
        return MEASUREMENTS[name](setting)
    except Exception as error:
        reason = (str(error) or "no message").splitlines()[0]
        return Failure(name, f"{type(error).__name__}: {reason}")
    finally:
        if setting.device == "cuda":
            torch.cuda.empty_cache()
