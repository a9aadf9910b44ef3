"""The mixed set: the very clips of its two sets, in a fixed order, none twice."""

import numpy as np
import pytest

from evatok.data.embedded import arcade, mixed

SMALL = {"size": 8, "frames": 2}


def _reel_of(name: str):
    """Clips that tell where they come from: set, stream, reel and place."""

    def reel(seed: int, number: int, size: int, frames: int):
        length = arcade.REEL if name == "arcade" else mixed.REEL
        mark = [seed, number, 1 if name == "arcade" else 0]
        clips = np.zeros((length, frames, size, size, 3), np.uint8)
        clips[:, 0, 0, 0], clips[:, 0, 0, 1, 0] = mark, np.arange(length)
        return clips, [{"motion": name} for _ in range(length)]

    return reel


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evatok.data.embedded.freedoom.freedoom_reel", _reel_of("freedoom"))
    monkeypatch.setattr("evatok.data.embedded.arcade.seen_reel", _reel_of("arcade"))


def test_three_freedoom_reels_to_one_of_arcade_and_no_clip_twice(marked: None) -> None:
    made = [mixed.mixed_reel(7, number, **SMALL) for number in range(8)]
    assert [{one["set"] for one in labels} for _, labels in made] == [{"freedoom"}] * 3 + [{"arcade"}] + [
        {"freedoom"}
    ] * 3 + [{"arcade"}]
    assert all(len(clips) == len(labels) == mixed.REEL for clips, labels in made)
    assert len({clip.tobytes() for clips, _ in made for clip in clips}) == 8 * mixed.REEL


def test_each_set_comes_in_its_own_order_from_its_first_clip_on(marked: None) -> None:
    made = np.concatenate([mixed.mixed_reel(7, number, **SMALL)[0] for number in range(8)])
    marks = made[:, 0, 0, 0].astype(int)
    for is_arcade, length in ((0, mixed.REEL), (1, arcade.REEL)):
        own = made[marks[:, 2] == is_arcade]
        place = own[:, 0, 0, 0, 1].astype(int) * length + own[:, 0, 0, 1, 0]
        assert place.tolist() == list(range(len(own)))


def test_another_seed_makes_other_clips(marked: None) -> None:
    assert not np.array_equal(mixed.mixed_reel(1, 3, **SMALL)[0], mixed.mixed_reel(2, 3, **SMALL)[0])
