"""VTok's Figure 2: clips of prompts with their questions, real ones above the samples of each stored row."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evatok.data.embedded.scene_ruler import Ruler
from evatok.pictures.contact_sheet import contact_sheet
from evatok.pictures.gallery import save_moving, side_by_side
from evatok.reporting.tables import TableError
from evatok.storage.files import ordinary, replacing

NAME = "vtok_figure2"
_WIDTH = 64  # characters per line


@dataclass(frozen=True)
class Prompts:
    """N prompts with one question each, its answer, and the real clips (N, T, H, W, 3) that match them."""

    prompts: list[str]
    questions: list[str]
    answers: list[str]
    real: np.ndarray


def draw(held: Prompts, samples: dict[str, Path], figures: Path) -> list[Path]:
    """Write the sheet and the moving picture; `samples`: files of rows by label, as written by `vtok_align`.

    Raises:
        TableError: a file of other prompts or questions, or of clips of another shape.
    """
    made = {label: _clips(path, held) for label, path in samples.items()}
    clips, texts = [], []
    for number, clip in enumerate(held.real):
        clips.append(clip)
        told = [*textwrap.wrap(held.prompts[number], _WIDTH), held.questions[number]]
        texts.append("\n".join([*told, f"real: {_answer(clip, held.questions[number])}"]))
        for label, drawn in made.items():
            clips.append(drawn[number])
            answer = _answer(drawn[number], held.questions[number])
            texts.append(f"{label}\n{answer or 'nothing'}, asked for: {held.answers[number]}")
    sheet = contact_sheet(np.stack(clips), texts, frames=8)
    path = figures / f"{NAME}.png"
    with replacing(path) as partial:
        sheet.save(partial, "PNG")
    moving = side_by_side(held.real, *made.values(), columns=1 if made else 3)
    return [path, save_moving(moving, figures / f"{NAME}.mp4", fps=6.0, seconds=5.0)]


def _answer(clip: np.ndarray, question: str) -> str:
    return Ruler().answers(clip[None], [[question]])[0][0]


def _clips(path: Path, held: Prompts) -> np.ndarray:
    """Return the samples of a row, one per prompt."""
    try:
        with np.load(ordinary(path), allow_pickle=False) as file:
            clips, (prompts, texts) = file["clips"], json.loads(str(file["told"]))
    except Exception as error:  # a damaged file raises nearly anything
        raise TableError(f"{path}: not a file of samples ({error}); vtok_align with shown={path} writes it") from error
    count = len(held.prompts)
    if prompts[:count] != held.prompts or [asked[0] for asked in texts[:count]] != held.questions:
        raise TableError(f"{path}: samples for other prompts or questions than moving-shapes-align's first {count}")
    if clips[:count].shape != held.real.shape or clips.dtype != np.uint8:
        raise TableError(f"{path}: samples {clips.dtype} {clips.shape}, the real clips are {held.real.shape}")
    found: np.ndarray = clips[:count]
    return found
