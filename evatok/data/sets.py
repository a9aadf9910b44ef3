"""Clips by name: an embedded set, a set built earlier, or a user's own videos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from evatok.data import clips, containers, manifest, reels, splits
from evatok.data.clips import ClipSet, ClipSetError
from evatok.data.embedded import arcade, freedoom, images, mixed, moving_shapes
from evatok.data.reels import ClipSource, Reel
from evatok.data.streaming import Streaming, stream
from evatok.storage import ranks
from evatok.storage.files import cache_folder

STILLS = ("images", "moving-shapes-stills")
EMBEDDED = ("freedoom", "arcade", "arcade-seen", "arcade-held-out", "mixed", "moving-shapes", *STILLS)

_ARCADE: dict[str, tuple[Callable[..., Reel], tuple[str, ...]]] = {
    "arcade": (arcade.arcade_reel, arcade.GAMES),
    "arcade-seen": (arcade.seen_reel, arcade.SEEN_GAMES),
    "arcade-held-out": (arcade.held_out_reel, arcade.HELD_OUT_GAMES),
}

_MOVING_SHAPES: dict[str, tuple[Callable[..., Reel], dict[str, Any]]] = {
    "moving-shapes": (moving_shapes.moving_shapes_reel, moving_shapes.RECIPE),
    "moving-shapes-stills": (moving_shapes.stills_reel, moving_shapes.STILLS_RECIPE),
}


def source(name: str) -> ClipSource:
    """The embedded set `name`, or `name@version` of its recipe; "arcade..." and "mixed" need the extra evatok[arcade].

    "arcade" holds all 89 games, "arcade-seen" the 60 of them that "mixed" holds too, "arcade-held-out" the other 29.
    """
    base, _, version = name.partition("@")
    found = _newest(base)
    if name == "freedoom@2":
        return replace(found, reel=freedoom.reel_of_recipe_2, recipe=freedoom.RECIPE_2)
    if version and version != str(found.recipe["version"]):
        known = sorted({*(["2"] if base == "freedoom" else []), str(found.recipe["version"])})
        raise ClipSetError(f"embedded set {base!r} has no recipe {version!r}: {', '.join(known)}")
    return found


def _newest(name: str) -> ClipSource:
    if name == "freedoom":
        return ClipSource(name, freedoom.REEL, freedoom.freedoom_reel, freedoom.RECIPE, freedoom.recipe_versions())
    if name == "mixed":
        return ClipSource(name, mixed.REEL, mixed.mixed_reel, mixed.RECIPE, mixed.recipe_versions())
    if name == "images":
        return ClipSource(name, images.REEL, images.images_reel, images.RECIPE, mixed.recipe_versions())
    if name in _MOVING_SHAPES:
        shapes, recipe = _MOVING_SHAPES[name]
        return ClipSource(name, moving_shapes.REEL, shapes, recipe, moving_shapes.recipe_versions())
    if name in _ARCADE:
        reel, games = _ARCADE[name]
        return ClipSource(name, arcade.REEL, reel, arcade.recipe_of(games), arcade.recipe_versions())
    raise ClipSetError(f"unknown embedded set {name!r}; choose one of {', '.join(EMBEDDED)}")


def is_embedded(name: str) -> bool:
    """Whether `name` is an embedded set's, with or without the version of a recipe."""
    return name.partition("@")[0] in EMBEDDED


def pinned(name: str) -> str:
    """Return an embedded set's name with its recipe version, as in records and tables; other names are unchanged."""
    if not is_embedded(name) or "@" in name:
        return name
    return f"{name}@{source(name).recipe['version']}"


def clip_set(
    name: str | Path,
    split: str,
    count: int,
    *,
    size: int,
    frames: int,
    seed: int = 0,
    fps: float | None = None,
    workers: int = 2,
    streaming: Streaming | None = None,
) -> ClipSet:
    """Return `count` clips of a split.

    A user's own videos without a column `split` are dealt 80/10/10 to train, validation and test (`splits`).

    Args:
        name: an embedded set, perhaps with the version of its recipe ("freedoom@2"), the folder of a built set, a
            manifest CSV, a folder of class folders, tar shards or tables of videos (`evatok.data.containers`), several
            of these joined by "+"; with `frames` 1 of images (`evatok.data.still_image`).
        split: "train", "validation", "test" or what a manifest calls it; "all" takes every row of a user's own set.
        count: clips; 0 takes all of a user's own set.
        fps: frame rate at which a user's videos are sampled; None keeps their own (the papers: 3 for WebVid).
        workers: processes that render an embedded set.
        streaming: decode a user's own videos on the fly, instead of all of them first.

    Raises:
        ClipSetError, ManifestError: an unknown name or split, a negative count, or fewer clips than requested.
        ImportError: a set with games without the package of the games.
    """
    name = str(name)
    _check_embedded(name, split, frames)
    _check_count(name, count)
    shape: dict[str, Any] = {"size": size, "frames": frames, "fps": fps}
    return ranks.first(lambda: _clip_set(name, split, count, streaming, seed=seed, workers=workers, **shape))


def _clip_set(
    name: str,
    split: str,
    count: int,
    streaming: Streaming | None,
    *,
    size: int,
    frames: int,
    seed: int,
    fps: float | None,
    workers: int,
) -> ClipSet:
    """Build the same on rank 0 before the others find it."""
    if streaming and (is_embedded(name) or (Path(name) / "manifest.json").exists()):
        _refuse_fixed(name, streaming)
    elif streaming and splits.is_listing(name):
        return stream(name, split, streaming, size=size, frames=frames, fps=fps, count=count)
    if is_embedded(name):
        return reels.build(source(name), split, count, size=size, frames=frames, seed=seed, workers=workers)
    path = Path(name)
    if (path / "manifest.json").exists():
        found = _loaded(path, split, (frames, size, size, 3))
    elif splits.is_listing(name):
        found = decode(name, split, size=size, frames=frames, fps=fps, count=count)
    else:
        raise ClipSetError(_unknown(name))
    return found.head(count) if count else found


def _unknown(name: str) -> str:
    """Explain an unknown set name."""
    missing = [str(part) for part in splits.joined(name) if not part.exists()]
    if len(splits.joined(name)) > 1:
        return f"no listing at {missing[0]}, of {name!r}: only manifests and folders of a user's own are joined by +"
    return f"no clip set called {name!r}: give one of {', '.join(EMBEDDED)}, or the path of a set or manifest"


def _refuse_fixed(name: str, streaming: Streaming) -> None:
    """Raise ClipSetError if existing clips would have to change; they need no workers."""
    if streaming.random_start or streaming.short != "skip":
        told = "its clips are fixed: random_start and short are for videos that are decoded while training"
        raise ClipSetError(f"{name}: {told}; give a manifest CSV or a folder of class folders")


def _loaded(path: Path, split: str, shape: tuple[int, ...]) -> ClipSet:
    """Open a built set. Raises ClipSetError for another split or clips of another shape."""
    found = clips.load(path)
    held = found.manifest.get("split", split)
    if split not in (held, splits.ALL):
        raise ClipSetError(f"{path} holds the split {held!r}, not {split!r}")
    if found.clips.shape[1:] != shape:
        raise ClipSetError(f"{path}: clips have shape {found.clips.shape[1:]}, expected {shape}")
    return found


def built(
    name: str | Path,
    split: str,
    count: int,
    *,
    size: int,
    frames: int,
    seed: int = 0,
    fps: float | None = None,
) -> Path | None:
    """Return the folder from which `clip_set` would serve these clips; None if it must create them.

    Raises as `clip_set` does.
    """
    name = str(name)
    _check_embedded(name, split, frames)
    _check_count(name, count)
    path = Path(name)
    if is_embedded(name):
        return reels.cached(source(name), split, count, size=size, frames=frames, seed=seed)
    if (path / "manifest.json").exists():
        return path
    if not splits.is_listing(name):
        raise ClipSetError(_unknown(name))
    rows, _ = splits.rows_of(name, split, stills=frames == 1)
    return _decoded(_decoded_folder(rows, split, size=size, frames=frames, fps=fps), count)


def decode(path: Path | str, split: str, *, size: int, frames: int, fps: float | None, count: int = 0) -> ClipSet:
    """Decode a manifest CSV or a folder of classes into the cache, once; failures land in failures.csv there.

    A video that has changed since is decoded again. `count` clips (0: all) are decoded and no more, if the cache does
    not hold as many already. Raises as `clip_set` does.
    """
    _check_count(path, count)
    rows, made_by = splits.rows_of(path, split, stills=frames == 1)
    folder = _decoded_folder(rows, split, size=size, frames=frames, fps=fps)
    held = _decoded(folder, count)
    if held is not None:
        return clips.load(held)
    pixels, labels, failures = manifest.decode_manifest(rows, frames=frames, size=size, fps=fps, count=count)
    if count and len(labels) + len(failures) < len(rows):
        folder = folder.with_name(f"{folder.name}-{count}")  # only the first ones
    folder.mkdir(parents=True, exist_ok=True)
    failures.to_csv(folder / "failures.csv", index=False, errors="replace")
    facts = {"name": splits.name_of(path), "split": split, "splits_by": made_by, "fps": fps, "failures": len(failures)}
    return clips.save(folder, pixels, labels.drop(columns="path"), facts)


def _check_embedded(name: str, split: str, frames: int) -> None:
    """Raise ClipSetError for a split that an embedded set does not have, and for images of a set of videos."""
    if not is_embedded(name):
        return
    if frames == 1 and name.partition("@")[0] not in STILLS:
        raise ClipSetError(
            f"embedded set {name!r} holds videos: as clips of 1 frame there are only {' and '.join(STILLS)}"
        )
    if frames != 1 and name.partition("@")[0] == "images":
        raise ClipSetError(f"embedded set {name!r} holds images, clips of 1 frame, not of {frames}")
    if split == splits.ALL:
        told = f"embedded set {name!r} is made as long as asked, one split at a time"
        raise ClipSetError(f"{told}: {splits.ALL!r} is not one of them, only {', '.join(clips.SPLITS)}")


def _check_count(name: Path | str, count: int) -> None:
    """Raise ClipSetError for a negative number of clips, which no kind of set has."""
    if count < 0:
        told = "1 or more" if is_embedded(str(name)) else "1 or more, or 0 for all of them"
        raise ClipSetError(f"clip set {name}: {count} clips requested; give {told}")


def _decoded(folder: Path, count: int) -> Path | None:
    """Return a complete cached set with all clips of a user's own set, or else with at least its first `count`."""
    if (folder / "manifest.json").exists():
        return folder
    parts = [path.parent for path in folder.parent.glob(f"{folder.name}-*/manifest.json")] if count else []
    enough = {held: part for part in parts if (held := int(part.name.rsplit("-", 1)[1])) >= count}
    return enough[min(enough)] if enough else None


def _decoded_folder(rows: pd.DataFrame, split: str, *, size: int, frames: int, fps: float | None) -> Path:
    states = [containers.state(Path(path)) for path in rows["path"]]
    key = hashlib.sha256(
        f"{rows.to_csv()} {states} {size} {frames} {fps}".encode(errors="surrogateescape")
    ).hexdigest()[:16]
    return cache_folder() / f"videos-{frames}x{size}-{split}-{key}"
