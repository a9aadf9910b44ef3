"""Fields of the protocols of VTok's questions about videos; those of embedded sets add to what all share."""

from __future__ import annotations

from typing import Any

_VTOK = "VTok, arXiv 2602.04202"
_ASKED: dict[str, Any] = {"metrics": ("accuracy",), "optional": (), "reference": "none: answers are right or wrong"}

_MOVING_SHAPES: dict[str, Any] = {
    **_ASKED,
    "data": "moving-shapes",
    "data_version": 1,
    "split": "test",
    "clips": 600,
    "frames": 31,
}

_USERS: dict[str, Any] = {**_ASKED, "version": 1, "clip_choice": "first", "citation": _VTOK}


PROTOCOLS: tuple[dict[str, Any], ...] = (
    {
        **_MOVING_SHAPES,
        "name": "moving-shapes-understanding",
        "note": "Seven questions a clip, one of each category, by multiple choice over the category's answers; 6 FPS.",
    },
    {
        **_MOVING_SHAPES,
        "frames": 61,
        "name": "moving-shapes-understanding-12fps",
        "note": "The same scenes and questions at 12 FPS, for strategies that read so many frames.",
    },
    {
        **_MOVING_SHAPES,
        "frames": 16,
        "name": "moving-shapes-understanding-3fps",
        "note": "The same scenes and questions at 3 FPS, for models of 16 frames; the shortest events may be missed.",
    },
    {
        **_MOVING_SHAPES,
        "data": "freedoom",
        "data_version": 3,
        "clips": 320,
        "frames": 16,
        "name": "freedoom-understanding",
        "note": (
            "What the camera does, by multiple choice over six motions, asked of as many of these clips of each motion "
            "as there are of the rarest."
        ),
    },
    {
        **_MOVING_SHAPES,
        "clips": 1001,
        "name": "moving-shapes-align",
        "note": (
            "TV-Align in small: 1,001 captions, each with one question of the seven categories in turn, 143 of each; "
            "a judge answers them from clips that were made from the captions alone."
        ),
    },
    {
        **_USERS,
        "name": "vtok-tv-align",
        "data": "tv-align",
        "split": "test",
        "clips": None,
        "frames": 120,
        "fps": 24.0,
        "size": 720,
        "unknown": (
            "clips",
            "frames",
            "fps",
            "size",
            "resize",
            "padded",
            "rounding",
            "networks",
            "judge's prompt",
            "data",
        ),
        "note": (
            "About 1,000 (prompt, question, answer) triples of seven categories, judged by Qwen2.5-VL; not published."
        ),
    },
)
