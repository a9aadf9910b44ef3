"""The entries of results/tables/speed.csv (written by `benchmarks`) worth showing, and their wording."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

SHOWN = {
    ("tree_search", "block_evaluations"): "exact search of stage 2: blocks reconstructed, brute force and prefix tree",
    ("tree_search", "wall_seconds"): "exact search of stage 2: seconds, brute force and prefix tree",
    ("beam_search", "block_evaluations"): "search by beam: blocks reconstructed, prefix tree and beam",
    ("beam_search", "wall_seconds"): "search by beam: seconds, prefix tree and beam",
    ("stage2_100k_clips", "hours"): "stage 2 of the paper's 100,000 clips: hours, brute force and prefix tree",
    ("encode", "wall_seconds_uniform_to_router"): "encoding: seconds, uniform length and the router's lengths",
    ("encode", "wall_seconds_padded_to_grouped"): "encoding at the router's lengths: seconds, padded and grouped",
    ("encode_token_dependent", "wall_seconds_per_token"): "of it what depends on tokens: seconds per token",
    ("decode", "wall_seconds_padded_to_grouped"): "decoding at the router's lengths: seconds, padded and grouped",
    ("training_step", "wall_seconds"): "a training step at the router's lengths: seconds, padded and grouped",
    ("training_step_random_lengths", "wall_seconds"): "a proxy's training step: seconds, padded and grouped",
    ("training_step", "seconds_at_peak"): "model FLOPs utilisation of a training step (the ratio)",
    ("router_paper_size_pyramid", "flop"): "operations of a pass of the paper's tokenizer and of our router",
    ("router_paper_size_vit", "flop"): "operations of a pass of the paper's tokenizer and of the paper's router",
    ("router_pyramid", "wall_seconds"): "seconds of a pass of the tokenizer and of our router",
    ("bf16", "wall_seconds"): "a pass of the tokenizer: seconds, float32 and bfloat16",
    ("bf16", "psnr_db"): "its reconstructions: PSNR, float32 and bfloat16",
    ("generator_cache", "wall_seconds_per_token"): "generator: seconds per token, without and with a cache",
    ("generator_adaptive_few", "wall_seconds"): "generator, few at once: seconds, uniform and router's lengths",
    ("generator_adaptive_few", "tokens"): "generator, few at once: tokens, uniform and router's lengths",
    ("generator_adaptive_many", "wall_seconds"): "generator, many at once: seconds, uniform and router's lengths",
    ("generator_adaptive_many", "tokens"): "generator, many at once: tokens, uniform and router's lengths",
    ("generator_adaptive_few", "share_saved"): "generator, few at once: share of the time saved, and of the tokens",
    ("generator_adaptive_many", "share_saved"): "generator, many at once: share of the time saved, and of the tokens",
    ("freed_memory", "wall_seconds"): "training step on a CPU: seconds, freed memory given back and kept",
    ("generator_refills", "wall_seconds"): "generator: seconds, batches that wait for their longest and refills",
    ("generator_bf16", "wall_seconds_per_token"): "generator: seconds per token, float32 and bfloat16 weights",
    ("generator_cache", "seconds_at_bandwidth"): "generator: share of the memory's bandwidth used (the ratio)",
    ("peer_generate", "wall_seconds_per_token"): "generator: seconds per token, transformers' generate and ours",
    ("flextok_encode", "wall_seconds_all_tokens"): "encoding: seconds, EVATok, and VideoFlexTok with all tokens",
    ("flextok_encode", "wall_seconds_few_tokens"): "encoding: seconds, EVATok, and VideoFlexTok with an eighth",
    ("flextok_decode", "wall_seconds_one_step_few_tokens"): "decoding: seconds, EVATok, and VideoFlexTok in one step",
    ("flextok_decode", "wall_seconds_per_further_step_few_tokens"): "decoding: EVATok, and each further flow step",
    ("flextok_generator", "wall_seconds_per_clip_all_tokens"): "generator: seconds per clip, EVATok and VideoFlexTok",
    ("flextok_generator", "wall_seconds_per_clip_few_tokens"): "generator: the same, VideoFlexTok with an eighth",
    ("flextok_generator", "wall_seconds_per_token_few_tokens"): "generator: seconds per token, the same",
    (
        "flextok_sample_decoder",
        "wall_seconds_per_clip",
    ): "decoder of samples: seconds per clip, EVATok and VideoFlexTok",
    ("peer_lpips", "wall_seconds"): "LPIPS (VGG): seconds, the package lpips and ours",
    ("peer_lpips", "wall_seconds_target_known"): "LPIPS (VGG) to a known target: seconds, the package lpips and ours",
    ("peer_ssim", "wall_seconds_float64"): "SSIM in float64: seconds, torchmetrics and ours",
    ("peer_fid", "wall_seconds"): "Frechet distance of features: seconds, torch-fidelity and ours",
    ("peer_vq", "wall_seconds"): "codes of tokens: seconds, vector-quantize-pytorch and ours",
    ("attention_fp32", "wall_seconds"): "attention in float32: seconds, written out and as used",
    ("attention_bf16", "wall_seconds"): "attention in bfloat16: seconds, PyTorch's fused kernel and as used",
    ("i3d", "wall_seconds_per_clip_bf16"): "I3D: seconds per clip, float32 and bfloat16",
    ("i3d_bf16", "fvd"): "FVD by that network: float32 and bfloat16 (the ratio should be 1)",
    ("lpips", "wall_seconds_per_clip_bf16"): "LPIPS (VGG): seconds per clip, float32 and bfloat16",
    ("video_decode", "wall_seconds_end"): "16 frames from the end of a video file: seconds, decoding all and seeking",
    ("many_files", "wall_seconds_to_first_batch"): "10,000 video files: seconds to the first batch, unknown and known",
    ("many_files", "bytes_held"): "10,000 video files: bytes, decoded into memory and read while training",
    ("many_files", "wall_seconds_per_clip_one_worker"): "10,000 video files: seconds per clip, one by one and a worker",
    ("many_files", "wall_seconds_per_clip_two_workers"): "10,000 video files: seconds per clip, one worker and two",
    ("compile", "wall_seconds"): "a pass of the tokenizer: seconds, as it is and compiled",
}
"""Rows for a README, with their wording."""


def worth_showing(tables: Path) -> pd.DataFrame:
    """Return what | baseline | ours | times | device | record, a line for each row of SHOWN in speed.csv.

    Raises FileNotFoundError if nothing was measured yet.
    """
    table = pd.read_csv(tables / "speed.csv").dropna(subset=["ratio"])
    order = {key: number for number, key in enumerate(SHOWN)}
    lines = [
        {
            "what": SHOWN.get((line["row"], line["metric"]), f"{line['row']}, {line['metric']}"),
            "baseline": _number(line["baseline"]),
            "ours": _number(line["ours"]),
            "times": f"{line['ratio']:.2f}",
            "device": line["device"],
            "record": f"`{line['record']}`",
            "order": order.get((line["row"], line["metric"]), len(order)),
        }
        for line in table.to_dict("records")
        if (line["row"], line["metric"]) in order or _is_beams_percentile(line)
    ]
    columns = ["what", "baseline", "ours", "times", "device", "record"]
    return pd.DataFrame(lines, columns=[*columns, "order"]).sort_values(["device", "order"])[columns]


def _is_beams_percentile(line: Mapping[Hashable, Any]) -> bool:
    """Whether the line is a beam percentile, whose metric names its tables and weights."""
    return line["row"] == "beam_search" and str(line["metric"]).startswith("percentile_")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
