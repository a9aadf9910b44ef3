"""VideoFlexTok's token arithmetic: 672 tokens against 5,376 for 81 frames (Fig. 1, Sec. 3.4, 4.4), and its sizes.

    python reproductions/videoflextok/tokens.py            seconds; no GPU, no download

Nothing is measured: the numbers follow from the configurations `paper` and `paper-d28`, their chunks and their layers,
and are computed from the code that tokenizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from evatok.reporting import claims, flextok, tables
from evatok.reporting.claims import FAILS, HOLDS, Sign
from evatok.reporting.tables import Cell, Table
from evatok.tokenizers.videoflextok import VIDEOFLEXTOK_SIZES, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.encoder import RegisterEncoder
from evatok.tokenizers.videoflextok.flow_decoder import FlowDecoder
from evatok.tokenizers.videoflextok.long import chunk_starts

ITEM = "VideoFlexTok's token arithmetic"
SOURCE = "arithmetic"
WITHIN = 0.01
"""How far a computed number of parameters may be from the paper's rounded one."""


def tokens_of(config: VideoFlexTokConfig, frames: int, per_frame: int) -> int:
    """Tokens of a clip in chunks, each latent frame's counted once."""
    chunks = len(chunk_starts(config, frames))
    return per_frame * (config.blocks + (chunks - 1) * (config.blocks - 1))


def parameters() -> dict[tuple[str, str], float]:
    """Millions of parameters of each stack's blocks, modulation apart, on the meta device."""
    found = {}
    for size, name in (("paper-d12", "d12-d12"), ("paper", "d18-d18"), ("paper-d28", "d18-d28")):
        config = VIDEOFLEXTOK_SIZES[size]
        with torch.device("meta"):
            encoder, decoder = RegisterEncoder(config).layers, FlowDecoder(config).layers
        modulation = sum(p.numel() for key, p in decoder.named_parameters() if "modulation" in key)
        found[(name, "encoder_parameters")] = sum(p.numel() for p in encoder.parameters()) / 1e6
        found[(name, "decoder_parameters")] = (sum(p.numel() for p in decoder.parameters()) - modulation) / 1e6
        found[(name, "modulation_parameters")] = modulation / 1e6
    return found


def computed() -> dict[tuple[str, str], float]:
    """Everything by (row, metric)."""
    config = VIDEOFLEXTOK_SIZES["paper-d28"]
    most = config.registers
    bytes_of = {tokens: 2 * tokens for tokens in (1, most)}  # 64,000 codes fit in 2 bytes
    return {
        ("17 frames, 32 per latent frame", "tokens"): tokens_of(config, 17, 32),
        ("17 frames, all", "tokens"): tokens_of(config, 17, most),
        ("81 frames, 32 per latent frame", "tokens"): tokens_of(config, 81, 32),
        ("81 frames, all (3D grid)", "tokens"): tokens_of(config, 81, most),
        ("fewest against all", "bytes_ratio"): bytes_of[most] / bytes_of[1],
        **parameters(),
    }


def claims_of(found: dict[tuple[str, str], float], paper: dict[tuple[str, str], float]) -> list[Sign]:
    """Every number of the paper's, exactly; parameters within 1 %."""
    signs = []
    for (row, metric), value in paper.items():
        ours = found[(row, metric)]
        exact = ours == value or (metric.endswith("parameters") and abs(ours / value - 1) <= WITHIN)
        signs.append(Sign(f"{row}, {metric}", f"{value:g}", f"{ours:.5g}", HOLDS if exact else FAILS))
    return signs


def run(results: Path) -> None:
    paper = tables.paper_values("videoflextok_tokens")
    found = computed()
    units = {"tokens": "tokens", "bytes_ratio": ""}
    cells = [
        Cell(row, metric, paper.get((row, metric)), float(value), units.get(metric, "M"), 1, "paper", SOURCE)
        for (row, metric), value in found.items()
    ]
    caption = f"{ITEM}. Ours (paper): computed from the configurations, nothing is measured."
    Table("videoflextok_tokens", caption, cells).publish(results)
    decides = f"Numbers are compared as they are, parameters within {WITHIN:.0%}."
    claims.publish(claims_of(found, paper), results, "videoflextok_tokens_signs", ITEM, decides)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "tokens", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
