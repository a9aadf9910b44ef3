"""Measure a user's own images on image networks, shipped or the user's: the curves of supplement Figure 7."""

from __future__ import annotations

import argparse

from evatok.experiments import scored_videos
from evatok.reporting.command_line import checkpoints_folder


def curves(asked: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """See `evatok.experiments.scored_videos.curves`; `--proxy` and `--router` default to image networks."""
    folder, options = checkpoints_folder(asked), dict(vars(asked))
    if not asked.proxy:
        options["proxy"] = folder / f"image-proxy-{asked.size}.safetensors"
        options["router"] = asked.router or sorted(folder.glob(f"image-router-{asked.size}*.safetensors"))
    return scored_videos.curves(argparse.Namespace(**options))
