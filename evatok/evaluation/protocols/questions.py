"""Fields of VTok's protocols: questions about videos, and VBench; embedded sets extend the fields they all share.

The benchmarks of Table 3 use the user's data (`evatok.alignment.benchmarks`), N counts questions, and the paper states
neither how many frames its models see nor how the questions are asked.
"""

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


def _benchmark(name: str, split: str, questions: int | None, note: str, *unknown: str) -> dict[str, Any]:
    """Build a benchmark of Table 3, with evenly spaced frames in their own aspect ratio."""
    return {
        **_USERS,
        "name": name,
        "data": name.removesuffix("-with-subtitles").removesuffix("-without-subtitles"),
        "split": split,
        "clips": questions,
        "frames": 32,
        "size": 336,
        "unknown": ("frames", "fps", "size", "resize", "padded", "rounding", "networks", "prompt", *unknown),
        "note": note,
    }


_MME = "All 2,700 questions about 900 videos; letters of four options."

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
    _benchmark("video-mme-without-subtitles", "test", 2700, _MME),
    _benchmark("video-mme-with-subtitles", "test", 2700, f"{_MME} All subtitles of a video stand before the question."),
    _benchmark("video-mmmu", "test", None, "Three tracks of 300; open questions are left out here.", "clips"),
    _benchmark("mmvu", "validation", None, "1,000 questions; open ones are left out here.", "clips", "split"),
    _benchmark("mvbench", "test", 4000, "Twenty tasks of 200 questions."),
    _benchmark("longvideobench", "validation", 1337, "Videos of 8 s to an hour; without their subtitles.", "split"),
    _benchmark("lvbench", "test", 1549, "Videos of 30 minutes and more."),
    {
        **_USERS,
        "name": "vbench",
        "data": "vbench",
        "split": "test",
        "clips": None,
        "frames": 120,
        "size": 720,
        "metrics": ("vbench",),
        "unknown": ("clips", "frames", "fps", "size", "resize", "padded", "rounding", "networks", "prompts rewritten"),
        "reference": "none: each sample is judged by itself",
        "note": "Sixteen dimensions by VBench's own networks, run elsewhere; Table 2 shows nine columns of them.",
    },
)
