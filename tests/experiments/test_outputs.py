"""What cannot be written is found before any work, and no two runs write in one place."""

import pytest

from evatok.experiments.outputs import OutputError, Outputs
from evatok.storage.locks import LockedError

TRAINING = Outputs(folders=("work", "records_folder"), files=("checkpoint",), owned=("work",))
MEASURING = Outputs(folders=("work", "records_folder"))


def config(tmp_path, **changes):
    places = {
        "work": tmp_path / "work",
        "records_folder": tmp_path / "records",
        "checkpoint": tmp_path / "c.safetensors",
    }
    return {"seed": 0, "threads": 0, **{key: str(value) for key, value in (places | changes).items()}}


@pytest.mark.parametrize("key", ["work", "records_folder", "checkpoint"])
@pytest.mark.parametrize("case", ["a file in the way", "a file above", "too long", "a zero"])
def test_a_place_that_cannot_be_is_refused_by_its_key(tmp_path, key, case):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    place = {
        "a file in the way": tmp_path / ("folder" if key == "checkpoint" else "file"),
        "a file above": tmp_path / "file" / "deeper" / "still",
        "too long": tmp_path / ("x" * 300) / "y",
        "a zero": tmp_path / "a\0b",
    }[case]
    with pytest.raises(OutputError, match=f"config key {key}: "), TRAINING.held("x", config(tmp_path, **{key: place})):
        pytest.fail("work was done")


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # whoever runs this may be root
    with pytest.raises(OutputError, match="not writable"), MEASURING.held("x", config(tmp_path)):
        pytest.fail("work was done")


def test_checking_makes_no_folder_but_the_one_that_is_locked(tmp_path):
    with TRAINING.held("x", config(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_folder_that_is_owned_has_one_run_whatever_it_asks(tmp_path):
    with TRAINING.held("x", config(tmp_path)):
        with pytest.raises(LockedError, match="work="), TRAINING.held("y", {**config(tmp_path), "seed": 1}):
            pass
        with TRAINING.held("x", config(tmp_path, work=tmp_path / "other")):
            pass


def test_a_folder_of_shards_has_many_runs_but_no_two_of_one_command(tmp_path):
    with MEASURING.held("x", config(tmp_path)):
        with MEASURING.held("x", {**config(tmp_path), "seed": 1}), MEASURING.held("y", config(tmp_path)):
            pass
        for same in (config(tmp_path), {**config(tmp_path, records_folder=tmp_path / "elsewhere"), "threads": 2}):
            with pytest.raises(LockedError, match="what this command asks for"), MEASURING.held("x", same):
                pass


def test_what_is_not_wanted_needs_no_place(tmp_path):
    with TRAINING.held("x", config(tmp_path, checkpoint="")):
        pass
