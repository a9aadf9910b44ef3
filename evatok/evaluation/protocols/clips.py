"""The clips of a protocol: chosen, decoded and resized as it says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from evatok.data import clips as clip_sets
from evatok.data import manifest, sets, splits
from evatok.data.clips import ClipSet
from evatok.data.probe import Probe, VideoError, opened, probe, tick, upright
from evatok.data.video import pick_frames
from evatok.evaluation.protocols.protocol import RESIZES, Protocol, ProtocolError
from evatok.storage.files import cache_folder

LONG = 16  # times that a frame may be longer than it is wide: the whole of it is resized before the centre is cut out


def clips_of(
    protocol: Protocol, data: str | Path = "", *, limit: int | None = None, seed: int | None = None, workers: int = 2
) -> ClipSet:
    """The clips a protocol measures, or the first `limit` of them.

    Args:
        data: for data sets that are not embedded: a manifest CSV or a folder of class folders, from which clips are
            chosen and resized as the protocol says (once, into the cache), or a set built so.
        seed: another clip choice than the protocol's own, to see how much the choice moves a number.

    Raises:
        ProtocolError: data where none is needed, none where it is, or nothing at that path.
        ClipSetError, ManifestError, VideoError: clips that cannot be made.
    """
    seed = protocol.clip_seed if seed is None else seed
    wanted = limit or protocol.clips or 0
    if protocol.clips is not None and wanted > protocol.clips:
        raise ProtocolError(
            f"limit {limit}: protocol {protocol.name} measures {protocol.clips} clips; a limit is for less of them"
        )
    if protocol.embedded:
        if data:
            raise ProtocolError(f"protocol {protocol.name} makes its own {protocol.data} clips: leave data away")
        return sets.clip_set(
            f"{protocol.data}@{protocol.data_version}",
            protocol.split,
            wanted,
            size=protocol.size,
            frames=protocol.frames,
            seed=seed,
            workers=workers,
        )
    path = Path(data)
    if not str(data) or not path.exists():
        told = f"there is nothing at {data}" if data else "it is not shipped"
        raise ProtocolError(
            f"protocol {protocol.name} measures {protocol.data} ({protocol.split}), and {told}: set data to a manifest "
            "CSV, a folder of class folders, or a set built from them under this protocol"
        )
    if not (path / "manifest.json").exists():
        found = decode(protocol, path, wanted, seed)
    elif seed == protocol.clip_seed:
        found = clip_sets.load(path)
    else:
        raise ProtocolError(f"{path} holds one choice of clips: for another (seed {seed}) set data to the videos")
    return found.head(min(wanted, len(found))) if wanted else found


def windows(lengths: Sequence[int], protocol: Protocol, seed: int) -> list[tuple[int, int]]:
    """(video, first frame) of every clip, from the videos' lengths in frames at the protocol's rate.

    A video's start depends on the seed and its own index alone, so a longer list begins with the shorter one.
    """
    frames, videos = protocol.frames, range(len(lengths))
    last = [max(length - frames, 0) for length in lengths]
    if protocol.clip_choice == "first":
        return [(video, 0) for video in videos]
    if protocol.clip_choice == "random-start":
        return [(video, int(np.random.default_rng([seed, video]).integers(last[video] + 1))) for video in videos]
    every = [(video, start) for video in videos for start in range(0, last[video] + 1, frames)]
    if len(every) < (protocol.clips or 0):
        raise ProtocolError(f"protocol {protocol.name} draws {protocol.clips} windows, the videos hold {len(every)}")
    drawn = np.random.default_rng(seed).choice(len(every), protocol.clips, replace=False)
    return [every[index] for index in drawn.tolist()]


def decode(protocol: Protocol, path: Path | str, count: int, seed: int) -> ClipSet:
    """Choose, decode and resize clips as the protocol says, into the cache; `count` 0 takes all.

    Unlike a training set, a measured one has no failures: a video that cannot be read is an error.
    Raises ProtocolError for no video of the split, VideoError for one that is damaged or too short.
    """
    path = Path(path)
    rows = _rows(protocol, path)
    folder = cache_folder() / f"{protocol.name}-{protocol.hash[:8]}-{_key(rows, count, seed)}"
    if (folder / "manifest.json").exists():
        return clip_sets.load(folder)
    held = [probe(Path(video)) for video in tqdm(rows["path"], "probe", unit="video", disable=None)]
    grids = [_grid(one, protocol) for one in held]
    chosen = windows([len(grid) for grid in grids], protocol, seed)
    chosen = chosen[:count] if count else chosen
    pixels = np.empty((len(chosen), protocol.frames, protocol.size, protocol.size, 3), dtype=np.uint8)
    for place, (video, start) in enumerate(tqdm(chosen, "decode", unit="clip", disable=None)):
        wanted = grids[video][start : start + protocol.frames]
        pixels[place] = _read(Path(rows["path"].iloc[video]), held[video], wanted, protocol)
    labels = rows.iloc[[video for video, _ in chosen]].drop(columns="path").reset_index(drop=True)
    labels = labels.assign(start=[start for _, start in chosen])
    facts = {"name": protocol.data, "split": protocol.split, "seed": seed, "protocol": protocol.hash}
    return clip_sets.save(folder, pixels, labels, facts)


def _rows(protocol: Protocol, path: Path) -> pd.DataFrame:
    rows = manifest.read_manifest(path) if path.is_file() else manifest.scan_class_folders(path)
    splits.check(path, rows)
    if rows["split"].ne("").any():
        rows = rows[rows["split"] == protocol.split].reset_index(drop=True)
    if rows.empty:
        raise ProtocolError(f"{path}: no row of split {protocol.split!r}, which protocol {protocol.name} measures")
    if (rows["start"] != 0).any():
        raise ProtocolError(f"{path}: protocol {protocol.name} chooses where clips start: leave the column start out")
    return rows


def _key(rows: pd.DataFrame, count: int, seed: int) -> str:
    files = [Path(path).stat() for path in rows["path"]]
    states = [(file.st_size, file.st_mtime_ns) for file in files]
    return hashlib.sha256(f"{rows.to_csv()} {states} {count} {seed}".encode(errors="surrogateescape")).hexdigest()[:16]


def _grid(held: Probe, protocol: Protocol) -> np.ndarray:
    """Indices of a video's frames at the protocol's rate."""
    everything = np.arange(len(held.pts))
    if protocol.fps is not None:
        frames = int((held.times[-1] + held.lasts) * protocol.fps) + 1
        everything = pick_frames(held.times, frames=frames, fps=protocol.fps, start=0.0, lasts=held.lasts)
    return everything[:: protocol.stride]


def _read(path: Path, held: Probe, wanted: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Frames `wanted` (n,) of a video as one clip (T, S, S, 3) uint8; a short one repeats its last frame."""
    if len(wanted) < protocol.frames and not protocol.padded:
        raise VideoError(path, f"{len(wanted)} frames at the protocol's rate, {protocol.frames} are needed")
    index_at = {int(held.pts[index]): index for index in wanted.tolist()}
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
    clip = [pictures[index] for index in wanted.tolist()]
    return np.stack(clip + clip[-1:] * (protocol.frames - len(clip)))


def square(picture_HWC: np.ndarray, size: int, resize: str) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3): shorter side resized as torchvision's Resize does, the centre cut out."""
    height, width = picture_HWC.shape[:2]
    short = min(height, width)
    if max(height, width) > LONG * short:
        raise ProtocolError(f"frames of {height}x{width}: one side is more than {LONG} times the other; cut them first")
    tall, wide = size * height // short, size * width // short
    pixels = torch.from_numpy(np.ascontiguousarray(picture_HWC)).permute(2, 0, 1)[None].float()
    mode = RESIZES[resize]
    if (tall, wide) != (height, width):
        if mode is None:
            raise ProtocolError(f"frames of {height}x{width} where clips are made at {size}x{size}")
        pixels = F.interpolate(pixels, (tall, wide), mode=mode, align_corners=False, antialias=True)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    centre = pixels[0, :, top : top + size, left : left + size]
    return centre.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
