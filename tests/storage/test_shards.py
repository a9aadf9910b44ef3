"""The cached loop over shards: nothing is computed twice, nothing stale is read, and progress is told of every item."""

import numpy as np
import pytest

from evatok.storage.shards import ShardStore, computed, ranges


@pytest.fixture
def squares(tmp_path):
    """Squares of numbers in pieces of three: (numbers, version) -> the result, the pieces computed, the progress."""

    def run(numbers: list[int], version: str = "1", store: ShardStore | None = None):
        store = store or ShardStore(tmp_path)
        made, ticks = [], []

        def make(piece, tick):
            made.append(piece)
            for _ in piece:
                tick(1)
            return {"squares": np.array(piece) ** 2}

        pieces = [numbers[start:stop] for start, stop in ranges(len(numbers), 3)]
        found = computed(store, pieces, lambda piece: {"of": piece, "by": version}, make, tick=ticks.append)
        return found, made, sum(ticks)

    return run


def test_a_longer_list_computes_only_what_is_new(squares):
    found, made, done = squares([1, 2, 3])
    assert (found.joined()["squares"].tolist(), made, done, found.resumed) == ([1, 4, 9], [[1, 2, 3]], 3, 0)
    found, made, done = squares([1, 2, 3, 4])
    assert (found.joined()["squares"].tolist(), made, done, found.resumed) == ([1, 4, 9, 16], [[4]], 4, 3)


def test_another_version_computes_everything(squares):
    squares([1, 2, 3])
    assert squares([1, 2, 3], version="2")[1] == [[1, 2, 3]]


def test_an_interrupted_loop_keeps_what_was_finished(squares, tmp_path):
    class Full(ShardStore):
        def put(self, made_by, arrays):
            if 4 in made_by["of"]:
                raise OSError("no space")
            super().put(made_by, arrays)

    with pytest.raises(OSError, match="no space"):
        squares([1, 2, 3, 4, 5], store=Full(tmp_path))
    assert squares([1, 2, 3, 4, 5])[1] == [[4, 5]]


def test_a_damaged_shard_is_computed_again_and_counted(squares, tmp_path):
    squares([1, 2, 3])
    (shard,) = tmp_path.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    store = ShardStore(tmp_path)
    with pytest.warns(UserWarning, match="computed again"):
        found, made, _ = squares([1, 2, 3], store=store)
    assert (made, found.resumed, store.damaged) == ([[1, 2, 3]], 0, [shard.name])
    assert squares([1, 2, 3])[1] == []


def test_without_a_store_everything_is_computed_and_no_key_is_asked_for():
    found = computed(None, [[1], [2]], lambda piece: pytest.fail("asked"), lambda piece, tick: {"x": np.array(piece)})
    assert found.joined()["x"].tolist() == [1, 2]


@pytest.mark.parametrize(("count", "length"), [(0, 3), (1, 3), (6, 3), (7, 3)])
def test_ranges_hold_everything_once_and_none_is_longer(count, length):
    pieces = ranges(count, length)
    assert [at for start, stop in pieces for at in range(start, stop)] == list(range(count))
    assert all(0 < stop - start <= length for start, stop in pieces)
