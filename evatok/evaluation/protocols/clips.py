"""Choose, decode and resize the clips of a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from evatok.data import class_folders, containers, manifest, sets, splits
from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet
from evatok.data.decoding import pick_frames
from evatok.data.probe import Probe, VideoError, opened, probe, tick, upright
from evatok.data.still_image import picture_of
from evatok.evaluation.protocols.protocol import RESIZES, Protocol, ProtocolError
from evatok.storage.files import cache_folder

LONG = 16  # maximum aspect ratio: the whole frame is resized before the centre is cropped


def clips_of(
    protocol: Protocol, data: str | Path = "", *, limit: int | None = None, seed: int | None = None, workers: int = 2
) -> ClipSet:
    """Return the clips that a protocol measures, or the first `limit` of them.

    Args:
        data: for data sets that are not embedded: a manifest CSV, a folder of class folders, tar shards or tables of
            videos (`evatok.data.containers`), from which clips are chosen and resized by the protocol (once, into the
            cache), or a set already built by this protocol.
        seed: for another clip choice than the protocol's own, to see how much the choice changes a value.

    Raises:
        ProtocolError: data for an embedded set, no data for any other, or nothing at that path.
        ClipSetError, ManifestError, VideoError: clips that cannot be created.
    """
    seed = protocol.clip_seed if seed is None else seed
    count = limit or protocol.clips or 0
    if protocol.clips is not None and count > protocol.clips:
        raise ProtocolError(f"limit {limit} exceeds the {protocol.clips} clips that protocol {protocol.name} measures")
    if protocol.embedded and data:
        raise ProtocolError(f"protocol {protocol.name} generates its own {protocol.data} clips: do not set data")
    if protocol.embedded:
        name, size, frames = f"{protocol.data}@{protocol.data_version}", protocol.size, protocol.frames
        return sets.clip_set(name, protocol.split, count, size=size, frames=frames, seed=seed, workers=workers)
    return _clips_at(protocol, data, count, seed)


def _clips_at(protocol: Protocol, data: str | Path, count: int, seed: int) -> ClipSet:
    """Return the clips of a data set that is not embedded."""
    path = Path(data)
    if not str(data) or not path.exists():
        cause = f"{data} does not exist" if data else "it is not shipped"
        raise ProtocolError(
            f"protocol {protocol.name} measures {protocol.data} ({protocol.split}); {cause}: set data to a manifest "
            "CSV, a folder of class folders, tar shards, or a set built from them by this protocol"
        )
    if not (path / "manifest.json").exists():
        clips = decode(protocol, path, count, seed)
    elif seed == protocol.clip_seed:
        clips = clip_sets.load(path)
    else:
        raise ProtocolError(f"{path} holds a single choice of clips: for another (seed {seed}), set data to the videos")
    return clips.head(min(count, len(clips))) if count else clips


def windows(lengths: Sequence[int], protocol: Protocol, seed: int) -> list[tuple[int, int]]:
    """Choose (video, first frame) of every clip, given the videos' lengths in frames at the protocol's rate.

    A video's start depends only on the seed and its own index, so a longer list starts with the shorter one.
    """
    frames, videos = protocol.frames, range(len(lengths))
    last = [max(length - frames, 0) for length in lengths]
    if protocol.clip_choice == "first":
        return [(video, 0) for video in videos]
    if protocol.clip_choice == "random-start":
        return [(video, int(np.random.default_rng([seed, video]).integers(last[video] + 1))) for video in videos]
    candidates = [(video, start) for video in videos for start in range(0, last[video] + 1, frames)]
    if len(candidates) < (protocol.clips or 0):
        raise ProtocolError(
            f"protocol {protocol.name} draws {protocol.clips} windows, the videos have {len(candidates)}"
        )
    drawn = np.random.default_rng(seed).choice(len(candidates), protocol.clips, replace=False)
    return [candidates[index] for index in drawn.tolist()]


def decode(protocol: Protocol, path: Path | str, count: int, seed: int) -> ClipSet:
    """Choose, decode and resize clips by the protocol, into the cache; `count` 0 takes all.

    Unlike in a training set, a video that cannot be read is an error. Raises ProtocolError if the split has no video,
    VideoError for a video that is damaged or too short.
    """
    path = Path(path)
    rows = _rows(protocol, path)
    folder = cache_folder() / f"{protocol.name}-{protocol.hash[:8]}-{_key(rows, count, seed)}"
    if (folder / "manifest.json").exists():
        return clip_sets.load(folder)
    facts = {"name": protocol.data, "split": protocol.split, "seed": seed, "protocol": protocol.hash}
    if protocol.frames == 1:
        return clip_sets.save(folder, *_images(rows[:count] if count else rows, protocol), facts)
    probes = [probe(Path(video)) for video in tqdm(rows["path"], "probe", unit="video", disable=None)]
    grids = [_grid(video, protocol) for video in probes]
    chosen = windows([len(grid) for grid in grids], protocol, seed)
    chosen = chosen[:count] if count else chosen
    pixels = np.empty((len(chosen), protocol.frames, protocol.size, protocol.size, 3), dtype=np.uint8)
    for index, (video, start) in enumerate(tqdm(chosen, "decode", unit="clip", disable=None)):
        frames = grids[video][start : start + protocol.frames]
        pixels[index] = _read(Path(rows["path"].iloc[video]), probes[video], frames, protocol)
    labels = rows.iloc[[video for video, _ in chosen]].drop(columns="path").reset_index(drop=True)
    labels = labels.assign(start=[start for _, start in chosen])
    return clip_sets.save(folder, pixels, labels, facts)


def _images(rows: pd.DataFrame, protocol: Protocol) -> tuple[np.ndarray, pd.DataFrame]:
    """Load images (N, 1, S, S, 3) uint8 of these rows, and their labels. Raises VideoError for an unreadable one."""
    pixels = np.empty((len(rows), 1, protocol.size, protocol.size, 3), dtype=np.uint8)
    for index, path in enumerate(tqdm(rows["path"], "decode", unit="image", disable=None)):
        pixels[index, 0] = square(picture_of(path), protocol.size, protocol.resize)
    return pixels, rows.drop(columns="path").reset_index(drop=True)


def _rows(protocol: Protocol, path: Path) -> pd.DataFrame:
    if containers.files_of(path):
        if protocol.frames == 1:
            raise ProtocolError(f"{path}: images within tar shards or tables are not read; unpack them")
        rows = containers.scan(path)
    elif path.is_file():
        rows = manifest.read_manifest(path)
    else:
        rows = class_folders.scan_class_folders(path, stills=protocol.frames == 1)
    splits.check(path, rows)
    if rows["split"].ne("").any():
        rows = rows[rows["split"] == protocol.split].reset_index(drop=True)
    if rows.empty:
        raise ProtocolError(f"{path}: no row of split {protocol.split!r}, which protocol {protocol.name} measures")
    if (rows["start"] != 0).any():
        raise ProtocolError(f"{path}: protocol {protocol.name} chooses where clips start: remove the column start")
    return rows


def _key(rows: pd.DataFrame, count: int, seed: int) -> str:
    states = [containers.state(Path(path)) for path in rows["path"]]
    return hashlib.sha256(f"{rows.to_csv()} {states} {count} {seed}".encode(errors="surrogateescape")).hexdigest()[:16]


def _grid(held: Probe, protocol: Protocol) -> np.ndarray:
    """Indices of a video's frames at the protocol's rate."""
    indices = np.arange(len(held.pts))
    if protocol.fps is not None:
        frames = int((held.times[-1] + held.lasts) * protocol.fps) + 1
        indices = pick_frames(held.times, frames=frames, fps=protocol.fps, start=0.0, lasts=held.lasts)
    return indices[:: protocol.stride]


def _read(path: Path, held: Probe, indices: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Read frames `indices` (n,) of a video as a clip (T, S, S, 3) uint8; a short one repeats its last frame."""
    if len(indices) < protocol.frames and not protocol.padded:
        raise VideoError(path, f"only {len(indices)} frames at the protocol's rate, {protocol.frames} needed")
    index_at = {int(held.pts[index]): index for index in indices.tolist()}
    pictures: dict[int, np.ndarray] = {}
    with opened(path) as (container, stream):
        for frame in container.decode(stream):
            moment = tick(path, frame)
            if moment in index_at:
                pictures[index_at[moment]] = square(upright(frame), protocol.size, protocol.resize)
            if moment >= max(index_at):
                break
    if len(pictures) < len(index_at):
        raise VideoError(path, f"{len(index_at) - len(pictures)} of {len(index_at)} chosen frames cannot be decoded")
    clip = [pictures[index] for index in indices.tolist()]
    return np.stack(clip + clip[-1:] * (protocol.frames - len(clip)))


def square(picture_HWC: np.ndarray, size: int, resize: str) -> np.ndarray:
    """Resize the shorter side of (H, W, 3) uint8 like torchvision's Resize, and crop the centre: (size, size, 3)."""
    height, width = picture_HWC.shape[:2]
    short = min(height, width)
    if max(height, width) > LONG * short:
        raise ProtocolError(
            f"frames of {height}x{width}: one side is more than {LONG} times the other; crop them first"
        )
    tall, wide = size * height // short, size * width // short
    pixels = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)[None].float()
    mode = RESIZES[resize]
    if (tall, wide) != (height, width):
        if mode is None:
            raise ProtocolError(f"frames of {height}x{width}, but this protocol needs clips made at {size}x{size}")
        pixels = F.interpolate(pixels, (tall, wide), mode=mode, align_corners=False, antialias=True)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    centre = pixels[0, :, top : top + size, left : left + size]
    return centre.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
