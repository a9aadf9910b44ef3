"""Draw a scene: signed distances with one pixel of antialiasing, on a gradient with moving sensor noise.

Legend: T frames, S x S pixels.
"""

from __future__ import annotations

import math

import numpy as np

from evatok.data.embedded.scenes import COLOURS, SIDE, Scene, Thing, times_of

RING = 1.5  # wall width of a hollow shape, in pixels
ARM = 0.45  # half an arm's width of a cross, in radii
NOISE = 3.0  # deviation of the sensor noise, of 255
_TILE = SIDE + 16  # the noise is one fixed tile, seen through a different window in every frame


def draw(scene: Scene, frames: int, size: int = SIDE) -> np.ndarray:
    """uint8 (T, S, S, 3): `frames` evenly spaced frames of the scene's five seconds.

    A frame depends only on its time: every second of 61 frames equals the frame of 31 at the same time.
    """
    times, scale = times_of(frames), size / SIDE
    across = (np.arange(size, dtype=np.float32) + 0.5) / scale - 0.5
    picture = np.empty((frames, size, size, 3), dtype=np.float32)
    picture[:] = _background(scene, across)
    for thing in scene.things:
        _paint(picture, thing, times, across, scale)
    picture += _noise(scene.noise_seed, times, size)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def distance(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Signed distance in pixels of points (x, y) from the edge of a centred shape, negative inside; broadcasts."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius
    if shape == "triangle":
        sides = (2 * np.abs(x) - y - radius) / math.sqrt(5)  # from (0, -r) to (-r, r) and to (r, r)
        return np.maximum(sides, y - radius)
    upright = np.maximum(np.abs(x) - ARM * radius, np.abs(y) - radius)
    lying = np.maximum(np.abs(x) - radius, np.abs(y) - ARM * radius)
    return np.minimum(upright, lying)


def coverage(
    shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray, hollow: np.ndarray, scale: float = 1.0
) -> np.ndarray:
    """Share in [0, 1] of each pixel that a shape covers; `scale` is pixels drawn per pixel of the scene."""
    far = distance(shape, x, y, radius)
    solid = np.clip(0.5 - far * scale, 0, 1)
    inner = np.clip(0.5 - (far + RING) * scale, 0, 1)
    return solid - np.where(hollow, inner, 0)


def _paint(picture: np.ndarray, thing: Thing, times: np.ndarray, across: np.ndarray, scale: float) -> None:
    shown = thing.present(times)
    centre, radius, hollow = thing.places(times), thing.radii(times), thing.hollows(times)
    along = [(across[None] - centre[:, axis, None]).astype(np.float32) for axis in (0, 1)]
    share = coverage(
        thing.shape,
        along[0][:, None, :],
        along[1][:, :, None],
        radius.astype(np.float32)[:, None, None],
        hollow[:, None, None],
        scale,
    )
    share = np.where(shown[:, None, None], share, 0)[..., None].astype(np.float32)
    picture += share * (np.array(COLOURS[thing.colour], dtype=np.float32) - picture)


def _background(scene: Scene, across: np.ndarray) -> np.ndarray:
    """(S, S, 3) one colour with a linear gradient."""
    place = across / (SIDE - 1) - 0.5
    slope = scene.gradient[0] * place[None, :] + scene.gradient[1] * place[:, None]
    return np.array(scene.background, dtype=np.float32) + slope[..., None].astype(np.float32)


def _noise(seed: int, times: np.ndarray, size: int) -> np.ndarray:
    """(T, S, S, 3) windows of a tile of noise, each where a hash of the frame's time puts it."""
    edge = _TILE - SIDE
    tile = np.random.default_rng(seed).normal(0, NOISE, (size + edge, size + edge, 3)).astype(np.float32)
    hashed = [np.random.default_rng([seed, round(time * 1e6)]).integers(edge, size=2) for time in times.tolist()]
    return np.stack([tile[top : top + size, left : left + size] for top, left in hashed])
