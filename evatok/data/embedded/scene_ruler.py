"""The ruler of `moving-shapes`: answers questions about a clip from its pixels, by rules and templates only.

Each pixel is explained as background plus a share of the best-fitting palette colour. The share, cropped around the
object of a colour, is compared with drawn shapes of all radii, solid and hollow; motion is read from the path of its
centre. Nothing is trained, so it judges clips of any origin, and it does not know how a clip was made.

Legend: T frames, S x S pixels, C colours of the palette, W the side of a cut-out, M templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from evatok.data.embedded.scene_drawing import coverage
from evatok.data.embedded.scene_text import CATEGORIES, OPTIONS
from evatok.data.embedded.scenes import COLOURS, COMPASS, SECONDS, SHAPES, SIDE, SIZES

_BACKGROUND = 125  # brightest channel allowed in a background pixel; every palette colour has a brighter one
_FAR = 45.0  # of 255: a pixel further from every mixture of background and colour shows neither
_SEEN = 0.3  # smallest share of a colour that counts
_LEAST = 12.0  # minimum pixels of a colour that make an object
_WINDOW = 25  # W
_RADII = np.arange(4.0, 11.01, 0.5)
_SHIFTS = (-0.25, 0.25)
_FIRST, _LAST = 0.45, 4.55  # seconds before and after which scenes change only by motion
_RESTS, _ROUND, _ARRIVES, _AWAY, _QUICK, _TURNS = 2.0, 0.3, 0.6, 0.4, 1.15, 6


@dataclass(frozen=True)
class Track:
    """One object through a clip: T frames, of which `seen` (T,) show it.

    `centre` is (T, 2), right and down in pixels of a 64 x 64 picture; `radius` (T,) and `hollow` (T,) are those of the
    best template of its shape.
    """

    shape: str
    seen: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    hollow: np.ndarray


class Ruler:
    """The judge by rules: `answers(clips, questions)`; see `evatok.alignment.judge`."""

    name, version = "ruler", "1"

    def answers(self, clips: np.ndarray, questions: list[list[str]]) -> list[list[str]]:
        """Answer the questions about each uint8 clip (N, T, 64, 64, 3); "" if a clip does not show the answer.

        Raises:
            ValueError: clips of another shape, or a question of an unknown form.
        """
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[2:] != (SIDE, SIDE, 3):
            raise ValueError(
                f"the ruler reads uint8 clips (N, T, {SIDE}, {SIDE}, 3), got {clips.dtype} {clips.shape}; build or "
                f"resize them to {SIDE} pixels"
            )
        return [_answers(clip, texts) for clip, texts in zip(clips, questions, strict=True)]


def _answers(clip: np.ndarray, texts: list[str]) -> list[str]:
    tracks = measure(clip)
    return [answer(tracks, text) for text in texts]


def measure(clip: np.ndarray) -> dict[str, Track]:
    """Find the objects of a clip (T, 64, 64, 3) by colour."""
    shares = _shares(clip.astype(np.float32))
    seen = shares.sum(axis=(2, 3)) >= _LEAST
    return {name: _track(share, where) for name, share, where in zip(COLOURS, shares, seen, strict=True) if where.any()}


def answer(tracks: dict[str, Track], text: str) -> str:
    """Answer one question about the objects of a clip; "" if they do not show it.

    Raises:
        ValueError: a question of an unknown form.
    """
    words = text.split()
    named = [word for word in words if word in COLOURS]
    category = category_of(text)
    when = -1 if "end" in words else 0
    if category == "counting":
        count = sum(_there(track, -1) for track in tracks.values())
        return OPTIONS["counting"][count - 1] if 1 <= count <= 5 else ""
    if category in ("position", "size"):
        pair = [tracks.get(colour) for colour in named]
        one, other = pair
        if one is None or other is None or not (_there(one, when) and _there(other, when)):
            return ""
        return _beside(one, other, when) if category == "position" else _compared(one, other, when)
    if category == "state":
        return _state(tracks[named[0]]) if named[0] in tracks else ""
    if category == "colour" and "moving" not in words:
        shape = next(word for word in words if word in SHAPES)
        return next((colour for colour, track in tracks.items() if track.shape == shape), "")
    return _of_the_moving(tracks, category)


def category_of(text: str) -> str:
    """Return the category of a question. Raises ValueError for an unknown form."""
    begins = {
        "how many objects": "counting",
        "which way does": "direction",
        "where is the": "position",
        "how big is": "size",
        "which colour is": "colour",
        "what happens to": "state",
        "what does": "motion",
    }
    found = [category for begin, category in begins.items() if text.startswith(begin)]
    if not found:
        raise ValueError(f"not a question of moving-shapes: {text!r}; it must ask about one of {', '.join(CATEGORIES)}")
    return found[0]


def _shares(clip: np.ndarray) -> np.ndarray:
    """(C, T, S, S) share of each colour in each pixel; only the best colour of a pixel has one."""
    background = _background(clip)
    red, green, blue = np.moveaxis(clip - background, -1, 0)
    squared = red * red + green * green + blue * blue
    along, explained = [], []
    for colour in COLOURS.values():
        towards = np.array(colour, dtype=np.float32) - background
        length = (towards**2).sum(-1)
        share = (red * towards[..., 0] + green * towards[..., 1] + blue * towards[..., 2]) / length
        along.append(share)
        explained.append(np.maximum(share, 0) ** 2 * length)
    most = np.maximum.reduce(explained)
    near = squared - most < _FAR**2
    kept = [near & (mine == most) & (share > _SEEN) for share, mine in zip(along, explained, strict=True)]
    return np.stack([np.where(keep, np.minimum(share, 1), 0) for share, keep in zip(along, kept, strict=True)])


def _background(clip: np.ndarray) -> np.ndarray:
    """Fit (S, S, 3), a plane through all pixels too dark for an object; dark grey if there are too few."""
    dark = np.maximum(np.maximum(clip[..., 0], clip[..., 1]), clip[..., 2]) < _BACKGROUND
    size = clip.shape[1]
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    design = np.stack([np.ones_like(rows), columns, rows], axis=-1).reshape(-1, 3)
    weight = dark.mean(0).reshape(-1)
    if weight.sum() < 0.1 * len(weight):
        return np.full((size, size, 3), 50, dtype=np.float32)
    colour = (clip * dark[..., None]).sum(0).reshape(-1, 3) / np.maximum(dark.sum(0).reshape(-1, 1), 1)
    scaled = design * weight[:, None]
    plane = np.linalg.lstsq(scaled.T @ design, scaled.T @ colour, rcond=None)[0]
    return (design @ plane).reshape(size, size, 3).astype(np.float32)


def _track(share: np.ndarray, seen: np.ndarray) -> Track:
    """Track the object of one colour from its shares (T, S, S)."""
    total = np.maximum(share.sum((1, 2)), 1e-6)
    axis = np.arange(share.shape[1], dtype=np.float32)
    centre = np.stack([share.sum(1) @ axis, share.sum(2) @ axis], axis=1) / total[:, None]
    boxes = [_box_centre(one) for one in share]
    templates, energy, kinds = _templates()
    cuts = np.stack([_cut(one, box) for one, box in zip(share, boxes, strict=True)]).reshape(len(share), -1)
    losses = energy - 2 * cuts @ templates.T + (cuts**2).sum(1, keepdims=True)
    least = losses.reshape(len(share), len(SHAPES), -1).min(-1) / (cuts.sum(1, keepdims=True) + 1)
    shape = SHAPES[int(least[seen].mean(0).argmin())]
    own = [number for number, kind in enumerate(kinds) if kind[0] == shape]
    best = np.array(own)[losses[:, own].argmin(1)]
    radius = np.array([kinds[number][1] for number in best])
    hollow = np.array([kinds[number][2] for number in best])
    return Track(shape, seen, centre, radius, hollow)


def _box_centre(share: np.ndarray) -> tuple[int, int]:
    """Return the centre (row, column) of the region at least half covered."""
    held = share > 0.5 if (share > 0.5).any() else share > 0
    if not held.any():
        return 0, 0
    rows, columns = np.flatnonzero(held.any(1)), np.flatnonzero(held.any(0))
    return int(rows[0] + rows[-1] + 1) // 2, int(columns[0] + columns[-1] + 1) // 2


def _cut(share: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
    """Crop (W, W) of a share (S, S) around a pixel, 0 beyond the picture."""
    half = _WINDOW // 2
    padded = np.pad(share, half)
    return padded[centre[0] : centre[0] + _WINDOW, centre[1] : centre[1] + _WINDOW]


@cache
def _templates() -> tuple[np.ndarray, np.ndarray, list[tuple[str, float, bool]]]:
    """(M, W W) shapes about the middle and half a pixel from it, their squared sums (M,), and what each is."""
    half = _WINDOW // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    drawn, kinds = [], []
    for shape in SHAPES:
        for radius in _RADII.tolist():
            for hollow in (False, True):
                for right in _SHIFTS:
                    for down in _SHIFTS:
                        flat = coverage(shape, x - right, y - down, np.array(radius, np.float32), np.array(hollow))
                        drawn.append(flat.reshape(-1))
                        kinds.append((shape, radius, hollow))
    templates = np.stack(drawn).astype(np.float32)
    return templates, (templates**2).sum(1), kinds


def _there(track: Track, when: int) -> bool:
    """Whether it is visible in the first (0) or last (-1) frame."""
    return bool(track.seen[when])


def _beside(one: Track, other: Track, when: int) -> str:
    right, down = (one.centre[when] - other.centre[when]).tolist()
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "below" if down > 0 else "above"


def _compared(one: Track, other: Track, when: int) -> str:
    sizes = [_size_of(track, when) for track in (one, other)]
    return "same" if sizes[0] == sizes[1] else "larger" if sizes[0] > sizes[1] else "smaller"


def _size_of(track: Track, when: int) -> float:
    """Return the set's radius closest to the median of the first or last half second."""
    return min(SIZES.values(), key=lambda radius: abs(radius - float(np.median(track.radius[_near(track, when)]))))


def _near(track: Track, when: int) -> np.ndarray:
    """(T,) frames of the first (0) or last (-1) half second that show it; all that do if none of these does."""
    times = _times(track)
    part = track.seen & (times <= _FIRST if when == 0 else times >= _LAST)
    return part if part.any() else track.seen


def _state(track: Track) -> str:
    first, last = (bool(np.mean(track.hollow[_near(track, when)]) > 0.5) for when in (0, -1))
    if first != last:
        return "becomes hollow" if last else "becomes solid"
    if (track.hollow[track.seen] != first).any():
        return "flickers"
    return "stays hollow" if first else "stays solid"


def _of_the_moving(tracks: dict[str, Track], category: str) -> str:
    """Return colour, direction or motion of the object that moves furthest from where it first appears."""
    if not tracks:
        return ""
    reach = {colour: _distances(track).max() for colour, track in tracks.items()}
    colour = max(reach, key=lambda name: float(reach[name]))
    if category == "colour":
        return colour if reach[colour] >= _RESTS else ""
    motion, direction = _motion(tracks[colour])
    return motion if category == "motion" else direction


def _motion(track: Track) -> tuple[str, str]:
    """Classify motion and direction of a path."""
    path, times, away = track.centre[track.seen], _times(track)[track.seen], _distances(track)
    furthest = float(away.max())
    if furthest < _RESTS:
        return "stays", "nowhere"
    middle = path - path.mean(0)
    widths, axes = np.linalg.eigh(middle.T @ middle / len(path))
    if np.sqrt(max(float(widths[0]), 0.0) / float(widths[1])) > _ROUND:
        steps = middle[:-1, 0] * middle[1:, 1] - middle[:-1, 1] * middle[1:, 0]
        return "circles", "clockwise" if steps.sum() > 0 else "counter-clockwise"
    signs = np.sign(middle @ axes[:, 1])
    if (signs[1:] != signs[:-1]).sum() >= _TURNS:
        return "shakes", "sideways" if abs(axes[0, 1]) > abs(axes[1, 1]) else "up-and-down"
    right, down = (path[away.argmax()] - path[0]).tolist()
    direction = COMPASS[round(np.arctan2(down, right) / (np.pi / 4)) % 8]
    if away[-1] > _ARRIVES * furthest:
        return "goes", direction
    lasting = (away > _AWAY * furthest).sum() * (times[1] - times[0] if len(times) > 1 else SECONDS)
    return "darts" if lasting < _QUICK else "returns", direction


def _distances(track: Track) -> np.ndarray:
    """Distance in pixels from the first appearance, one per frame in which it is visible."""
    path = track.centre[track.seen]
    return np.linalg.norm(path - path[0], axis=1)


def _times(track: Track) -> np.ndarray:
    return SECONDS * np.arange(len(track.seen)) / max(len(track.seen) - 1, 1)
