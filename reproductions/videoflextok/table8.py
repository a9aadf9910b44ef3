"""VideoFlexTok Table 8 in small: a generative decoder against a regression decoder at nearly equal bits.

    python reproductions/videoflextok/table8.py            seconds; no GPU, no download, no PyTorch

Reads the records of `evatok.experiments.evaluate` under embedded-reconstruction: VideoFlexTok of stage 2 with all
tokens, and of EVATok's tokenizers at uniform lengths the one whose bits per pixel are nearest. The paper compares on
MSR-VTT with tokenizers that are not here; its rows are shown alone.

Expected (paper): the best rFVD (20.53) and the worst PSNR (19.67 dB, a secondary reading) of all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from evatok.reporting import claims, final_rows, final_tables, flextok
from evatok.reporting.claims import Sign
from evatok.reporting.final_rows import Chosen, Row, Spec, TableSpec
from evatok.reporting.flextok import FlexSpec

ITEM = "VideoFlexTok Table 8, reconstruction at nearly equal bits"
OURS, OTHER = "VideoFlexTok", "EVATok, uniform"
PAPER_ROWS = ("VidTok-FSQ", "LARP", "OmniTokenizer", "Cosmos-DV")
COLUMNS = ("psnr", "l1", "mse", "lpips", "rfid", "rfvd", "rtokens", "bits_per_pixel")
SPEC = FlexSpec(OURS, flextok.SHOWN)


def choose(folder: Path) -> Chosen:
    """Return the rows: ours, the nearest of EVATok's, and the paper-only ones."""
    chosen = flextok.choose(flextok.measured(folder), [SPEC])
    rows = {OURS: chosen.rows[OURS], OTHER: Row(Spec(OTHER, None))}
    if rows[OURS].records:
        first = rows[OURS].records[0]
        found = flextok.nearest(first, flextok.rivals(folder, first))
        rows[OTHER] = Row(Spec(OTHER, None), (found,) if found else ())
    return Chosen({**rows, **{name: Row(Spec(name, None)) for name in PAPER_ROWS}}, chosen.common)


def claims_of(rows: Mapping[str, Row]) -> list[Sign]:
    """A flow decoder trades distortion for perception."""
    return [
        claims.better(rows, OURS, OTHER, "rfvd", "the best rFVD: 20.53 against 28.33 (LARP)"),
        claims.better(rows, OTHER, OURS, "psnr", "the worst PSNR: 19.67 dB against 21.21 (LARP)"),
    ]


def run(results: Path) -> None:
    table = TableSpec("videoflextok_table8", ITEM, (), COLUMNS)
    chosen = choose(results / "records")
    note = flextok.told_rival(chosen.rows[OURS], chosen.rows[OTHER])
    flextok.publish_rows(table, chosen, flextok.caption(ITEM, chosen, note), results)
    flextok.publish_claims(claims_of(chosen.rows), table.name, ITEM, results)
    missing = []
    if not chosen.rows[OURS].records:
        missing += ["  python reproductions/videoflextok/stage2.py (says how to train and measure it)"]
    elif not chosen.rows[OTHER].records:
        checkpoint = "results/checkpoints/proxy-toy-motion.safetensors"
        settings = f"checkpoint={checkpoint} assignment=uniform:16 \"metrics='{final_rows.MEASURED}'\""
        missing += [f"  python -m evatok.experiments.evaluate with {settings}"]
    final_tables.tell(missing)


def main(argv: list[str] | None = None) -> int:
    return flextok.main(run, "table8", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
