"""README's table of claims, and results/README.md: our measurements beside the papers' numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evatok.metrics import catalogue
from evatok.reporting import claims, speed, tables

OPENING = "<!-- results: rewritten by python reproductions/readme.py -->"
CLOSING = "<!-- end of results -->"


@dataclass(frozen=True)
class Highlight:
    """A claim shown in the README: its wording, and the item and name under which it is judged."""

    claim: str
    item: str
    name: str


HIGHLIGHTS = (
    Highlight(
        "The router, in one pass, beats the best uniform assignment of each clip (proxy-reward percentile)",
        "table3_wq1.2",
        "validation: router better than best_uniform, proxy-reward percentile",
    ),
    Highlight(
        "A router on pooling statistics beats it too, at the weight that saves the paper's share of tokens",
        "table3",
        "test: pyramid_router better than best_uniform, proxy-reward percentile",
    ),
    Highlight(
        "The paper's router beats it with ST-LPIPS as the quality, the closest to its LPIPS",
        "table3_st_lpips",
        "validation: router better than best_uniform, proxy-reward percentile",
    ),
    Highlight(
        "Control: on games no router saw, the router beats the single assignment that is best overall",
        "table3_wq1.2",
        "unseen: router better than best_fixed, proxy-reward percentile",
    ),
    Highlight(
        "The router saves tokens at the rFVD of the uniform assignment",
        "main_figure4",
        "validation, rFVD: the router saves tokens at uniform's quality",
    ),
    Highlight(
        "The adaptive final tokenizer takes 24.4 % fewer tokens than the fixed one",
        "main_table1",
        "B2 takes 24.4 % fewer tokens than A2",
    ),
    Highlight(
        "The adaptive final tokenizer is no worse by ST-LPIPS (the paper: LPIPS)",
        "main_table1",
        "B2 no worse than A2, ST-LPIPS",
    ),
    Highlight(
        "The generator on the adaptive tokenizer has no worse gFVD", "main_table2", "router no worse than uniform, gfvd"
    ),
    Highlight(
        "Frame prediction takes fewer tokens with the paper's lengths for the given frames",
        "main_table4",
        "EVATok generates fewer tokens than fixed length",
    ),
    Highlight(
        "Stages 1 to 3, which choose assignments, take less than half of the time",
        "table2",
        "stages 1-3 of 1-4 is less than half of the wall time",
    ),
    Highlight(
        "VideoFlexTok: 16 tokens per latent frame have a better rFVD than 8",
        "videoflextok_figure2",
        "16 tokens, 20 steps better than 8 tokens, 20 steps, rFVD",
    ),
    Highlight(
        "Its samples in 20 flow steps have a better rFVD than in one",
        "videoflextok_figure2",
        "16 tokens, 20 steps better than 16 tokens, 1 step, rFVD",
    ),
    Highlight(
        "A generator on its codes has a better gFVD with a quarter of the tokens than with all of them",
        "videoflextok_table4",
        "time-first, few tokens better than time-first, all tokens, gfvd",
    ),
    Highlight(
        "VideoFlexTok has a better rFVD than EVATok at nearly equal bits",
        "videoflextok_table8",
        "VideoFlexTok better than EVATok, uniform, rFVD",
    ),
    Highlight(
        "VTok: 46 tokens answer more questions than eight frames' 128, after a training in which frames learn motion",
        "vtok_longer",
        "VTok: key frame 16, motion 6 a second above 8 even frames, average",
    ),
    Highlight(
        "VTok answers more questions about late events too",
        "vtok_longer",
        "VTok: key frame 16, motion 6 a second above 8 even frames, late",
    ),
)
"""Claims shown in the README: the core of the papers, and what contradicts them or us."""
ITEMS: dict[str, tuple[str, ...]] = {
    "table3": ("percentile", "top1", "top5"),
    "table3_wq1.2": ("percentile", "top1", "top5"),
    "table3_st_lpips": ("percentile", "top1", "top5"),
    "main_table1": ("psnr", "rfvd", "rtokens"),
    "main_table2": ("gfvd", "gtokens"),
    "main_table4": ("gfvd", "gtokens"),
    "class_consistency": ("class_consistency_balanced", "class_consistency_reconstructed_balanced", "gtokens"),
    "table2": ("wall_hours",),
    "main_figure4": ("saving_rfvd", "saving_st_lpips", "saving_psnr"),
}
"""Tables shown, each named by its script and possibly an operating point, with the selected metrics; tables never
written are left out."""
BESIDE_THE_PAPER = {
    *(
        f"{clips}/{row}"
        for clips in ("validation", "test", "unseen", "unseen_by_proxy")
        for row in ("pyramid_router", "best_fixed", "adaptok_row", "infotok", "random")
    ),
    *("fixed length", "EVATok, fewer given tokens", "games, uniform", "games, router"),
}
"""Rows shown although the paper has none of them."""
POINTS = {"table3": "w_q solved for", "table3_wq1.2": "w_q = 1.2", "table3_st_lpips": "w_q = 1.2, ST-LPIPS"}
"""What distinguishes rows with the same name."""
INTRODUCTION = """# Results

Written by `python reproductions/readme.py` from the tables in `tables/`, which `python -m reproductions` rebuilds from
the records in `records/`; tests hold all of them together. Our models and clips are of toy size (16x64x64 clips, CPU):
compare signs and ratios with the paper's, not absolute values. `../reproductions/README.md` explains what each item
reproduces, what it does not, and why."""
CLAIMS = f"{claims.RULE}."
VALUES = "Every value of the papers that was measured here, and rows that the papers lack (a dash in `paper`)."
SPEED = """Every row is a ratio within one run: a plain baseline and ours, timed round-robin (`python -m
benchmarks.speed`; on a GPU, at the paper's size in bfloat16, `python -m benchmarks.gpu`). `tables/speed.csv` has all of
them."""


def with_highlights(text: str, folder: Path) -> str:
    """The README with its table of claims regenerated from the tables in `folder`.

    Raises:
        TableError: the README has no place for it, or an item lacks the claim.
    """
    before, opening, rest = text.partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    if not opening or not closing:
        raise tables.TableError(f"README.md: put {OPENING} and {CLOSING} where the table of claims goes")
    return f"{before}{OPENING}\n{tables.markdown(highlights(folder))}\n{CLOSING}{after}"


def highlights(folder: Path) -> pd.DataFrame:
    """Return claim | paper | ours | verdict, a line for each of HIGHLIGHTS; an item never built is not measured."""
    return pd.DataFrame([_line(highlight, folder) for highlight in HIGHLIGHTS])


def _line(highlight: Highlight, folder: Path) -> dict[str, str]:
    told = {"paper": "-", "ours": "-", "verdict": claims.UNKNOWN}
    for path in claims_files(folder, highlight.item):
        table = pd.read_csv(path, dtype=str).set_index("name")
        if highlight.name not in table.index:
            raise tables.TableError(f"{path}: no claim {highlight.name!r}; name an existing one, or rebuild the table")
        told = {key: str(table.loc[highlight.name, key]) for key in told}
    return {"claim": f"{highlight.claim} (`{highlight.item}`)", **told}


def claims_files(folder: Path, item: str = "*") -> list[Path]:
    """Return the claims files of an item, by default of every item."""
    return sorted((*folder.glob(f"{item}_signs.csv"), *folder.glob(f"{item}_claims.csv")))


def page(folder: Path) -> str:
    """Build results/README.md: every claim counted, every measured value of the papers, and the speeds."""
    there = [name for name in ITEMS if (folder / f"{name}.csv").exists()]
    lines = pd.concat([shown(pd.read_csv(folder / f"{name}.csv"), name) for name in there])
    parts = [INTRODUCTION, "## Claims", CLAIMS, tables.markdown(counted(folder)), "## Values", VALUES]
    parts.append(tables.markdown(lines))
    if (folder / "speed.csv").exists():
        parts += ["## Speed", SPEED, tables.markdown(speed.worth_showing(folder))]
    return "\n\n".join(parts) + "\n"


def counted(folder: Path) -> pd.DataFrame:
    """Return a line for each item with claims: how many have which verdict."""
    lines = []
    for path in claims_files(folder):
        verdicts = pd.read_csv(path)["verdict"]
        words = (claims.HOLDS, claims.FAILS, claims.UNSURE, claims.UNKNOWN)
        counts = {word: str((verdicts == word).sum()) for word in words}
        item = path.stem.removesuffix("_signs").removesuffix("_claims")
        lines.append({"item": f"[{item}](tables/{path.stem}.md)", **counts})
    return pd.DataFrame(lines, columns=["item", claims.HOLDS, claims.FAILS, claims.UNSURE, claims.UNKNOWN])


def shown(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return what | paper | ours | record | script, a line for each value of the paper measured here."""
    kept = table[table["ours"].notna() & table["metric"].isin(ITEMS[name])]
    kept = kept[kept["paper"].notna() | kept["row"].isin(BESIDE_THE_PAPER)]
    lines = [
        {
            "what": _point_of(name) + f"{line['row']}, {catalogue.of(line['metric']).label}"
            f"{_in_brackets(line['unit'])}",
            "paper": _number(line["paper"]),
            "ours": _number(line["ours"]),
            "record": f"`{line['record']}`",
            "script": f"`reproductions/{name.partition('_wq')[0]}.py`",
        }
        for line in kept.to_dict("records")
    ]
    return pd.DataFrame(lines)


def _point_of(table: str) -> str:
    return f"{POINTS[table]}: " if table in POINTS else ""


def _in_brackets(unit: object) -> str:
    return f" ({unit})" if isinstance(unit, str) and unit not in ("", "tokens") else ""


def _number(value: float) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
