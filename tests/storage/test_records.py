"""Records keep what they were given, once, and say when they are wrong."""

import dataclasses
import json
import math
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from evatok.storage import environment, files, record_format, records

ENVIRONMENT = environment.environment(wall_seconds=1.5)


def made(**changes):
    """A valid record, with `changes` to the arguments of new_record."""
    arguments = {
        "kind": "reconstruction",
        "status": "toy",
        "protocol": {"dataset": "moving", "n": 32, "size": (64, 64)},
        "model": {"mean_tokens": np.float32(96.5)},
        "metrics": {"psnr": records.Metric(25.25, "dB", 32, "higher", 0.5)},
        "config": {"steps": 100},
        "environment": ENVIRONMENT,
    }
    return records.new_record(**{**arguments, **changes})


def test_record_comes_back_as_it_was_written(tmp_path):
    record = made()
    path = records.write(record, tmp_path)
    assert path.name == f"{record.id}.json"
    assert records.read(path) == record
    assert record.metrics["psnr"].value == 25.25
    assert record.model["mean_tokens"] == 96.5
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_may_be_given_as_dictionaries():
    entry = {"value": 1, "unit": "", "n": 4, "direction": None}
    assert made(metrics={"tokens": entry}).metrics["tokens"] == records.Metric(1, "", 4, None)


@pytest.mark.parametrize("missing", ["value", "unit", "n", "direction"])
def test_metric_must_be_complete(missing):
    entry = {"value": 1.0, "unit": "dB", "n": 4, "direction": "higher"}
    del entry[missing]
    with pytest.raises(records.RecordError, match=rf"metrics\.psnr: missing field {missing}"):
        made(metrics={"psnr": entry})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "huge"}, "status is 'huge', not one of toy, small, paper"),
        ({"kind": "r-FVD"}, "kind is 'r-FVD'"),
        ({"config": {"schedule": {"lr": math.nan}}}, r"config\.schedule\.lr is nan"),
        ({"metrics": {"psnr": records.Metric(math.inf, "dB", 4, "higher")}}, r"metrics\.psnr\.value is inf"),
        ({"metrics": {"psnr": records.Metric(1.0, "dB", 0, "higher")}}, r"metrics\.psnr\.n is 0"),
        ({"metrics": {"psnr": records.Metric(1.0, "dB", 4, "up")}}, r"metrics\.psnr\.direction is 'up'"),
        ({"metrics": {}}, "metrics is empty"),
        ({"protocol": {}}, "protocol is empty"),
        ({"model": {"net": object()}}, r"model\.net is a object, which JSON cannot hold"),
        ({"environment": {"argv": []}}, r"environment\.commit is missing"),
        ({"artifacts": {"x": records.Artifact("../x", "0" * 64)}}, r"artifacts\.x\.path"),
        ({"artifacts": {"x": records.Artifact("x", "abc")}}, r"artifacts\.x\.sha256"),
    ],
)
def test_invalid_records_are_refused(changes, message):
    with pytest.raises(records.RecordError, match=message):
        made(**changes)


def test_records_made_by_hand_are_checked_when_written(tmp_path):
    wrong = dataclasses.replace(made(), status="paper")
    with pytest.raises(records.RecordError, match="tampered"):
        records.write(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_record_is_written_once(tmp_path):
    record = made()
    records.write(record, tmp_path)
    with pytest.raises(records.RecordError, match="append-only"):
        records.write(record, tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["metrics"]["psnr"].update(value=30.0), "tampered"),
        (lambda content: content["protocol"].update(n=64), "tampered"),
        (lambda content: content.pop("model"), "missing field model"),
        (lambda content: content.update(note="better"), "unknown field note"),
        (lambda content: content.update(status=3), "field status is 3, expected str"),
        (
            lambda content: content["config"].update(data="/data/kinetics/train.csv"),
            "config holds an absolute",
        ),
    ],
)
def test_edited_files_are_reported_with_file_and_field(tmp_path, edit, message):
    path = records.write(made(), tmp_path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(records.RecordError, match=message) as caught:
        records.read(path)
    assert path.name in str(caught.value)


def test_renamed_broken_and_absent_files_are_reported(tmp_path):
    path = records.write(made(), tmp_path)
    with pytest.raises(records.RecordError, match="named after its id"):
        records.read(path.rename(tmp_path / "best.json"))
    (tmp_path / "cut.json").write_text('{"id": ')
    with pytest.raises(records.RecordError, match=r"cut\.json is not valid JSON"):
        records.read(tmp_path / "cut.json")
    with pytest.raises(records.RecordError, match="no such record"):
        records.read(tmp_path / "none.json")


def test_query_filters_and_sorts_newest_last(tmp_path):
    first, second = made(), made(protocol={"dataset": "moving", "n": 64})
    timing = made(kind="timing", status="small")
    for record in (timing, first, second):
        records.write(record, tmp_path)
    assert records.query(tmp_path, kind="reconstruction") == [first, second]
    assert records.query(tmp_path, status="small") == [timing]
    assert records.query(tmp_path, n=64) == [second]
    assert records.query(tmp_path, "reconstruction", size=(64, 64)) == [first]
    assert records.query(tmp_path, batch=1) == []
    assert records.query(tmp_path / "absent") == []


def test_the_newest_record_is_the_one_written_last_though_the_clock_jumps_back(tmp_path, monkeypatch, caplog):
    class Ahead(datetime):
        @classmethod
        def now(cls, zone):
            return datetime.now(zone) + timedelta(hours=3)

    with monkeypatch.context() as patched:
        patched.setattr(record_format, "datetime", Ahead)
        first = made()
    records.write(first, tmp_path)
    paths = [records.write(made(protocol={"n": number}), tmp_path) for number in (1, 2)]
    stored = records.query(tmp_path, kind="reconstruction")
    assert [record.protocol.get("n") for record in stored] == [32, 1, 2]
    assert [record.id for record in stored] == [first.id, *(path.stem for path in paths)]
    assert records.newest(tmp_path, "reconstruction") == stored[-1]
    assert "the clock reads" in caplog.text
    assert first.id in caplog.text


def test_the_same_numbers_are_recorded_once(tmp_path):
    first, new = records.write_once(made(), tmp_path)
    assert new
    nearly = records.Metric(25.25 * (1 + 1e-9), "dB", 32, "higher", 0.5)
    same = [{}, {"metrics": {"psnr": nearly}}, {"model": {"mean_tokens": 96.5, "run": "evaluate/7"}}]
    for changes in same:
        assert records.write_once(made(**changes), tmp_path) == (first, False)
    assert records.write_once(made(config={"steps": 100, "work": "here"}), tmp_path, free={"work"}) == (first, False)
    later = {"config": {"steps": 100, "fp16": False}}  # a key that this record's command did not have yet
    assert records.write_once(made(**later), tmp_path) == (first, False)
    others = [
        {"config": {"steps": 101}},
        {"config": {"steps": 100, "fp16": True}},
        {"config": {"steps": 100, "rate": 1e-7}},
        {"config": {"steps": 100, "rate": 2e-7}},
        {"status": "small"},
        {"model": {"mean_tokens": 96.6}},
        {"protocol": {"dataset": "moving", "n": 33, "size": (64, 64)}},
        {"metrics": {"psnr": records.Metric(25.26, "dB", 32, "higher", 0.5)}},
        {"artifacts": {"table": records.Artifact("a.parquet", "0" * 64)}},
    ]
    for count, changes in enumerate(others, start=2):
        assert records.write_once(made(**changes), tmp_path)[1], changes
        assert len(list(tmp_path.iterdir())) == count


def test_what_is_timed_makes_no_other_record_and_a_superseded_one_does(tmp_path):
    def timed(seconds):
        return made(
            metrics={"psnr": records.Metric(25.25, "dB", 32, "higher"), "t": records.Metric(seconds, "s", 1, None)}
        )

    first, _ = records.write_once(timed(1.0), tmp_path)
    assert records.write_once(timed(2.0), tmp_path) == (first, False)
    assert records.write_once(made(metrics={"psnr": records.Metric(25.25, "dB", 32, "higher")}), tmp_path)[1]
    records.write(made(metrics={"psnr": records.Metric(1.0, "dB", 1, "higher")}, supersedes=first.stem), tmp_path)
    assert records.write_once(timed(1.0), tmp_path)[1]


def test_superseded_records_stay_but_are_not_found(tmp_path):
    wrong = made()
    right = made(supersedes=wrong.id)
    with pytest.raises(records.RecordError, match="which is not in"):
        records.write(right, tmp_path)
    records.write(wrong, tmp_path)
    records.write(right, tmp_path)
    assert records.query(tmp_path) == [right]
    assert records.query(tmp_path, superseded=True) == [wrong, right]


def test_no_absolute_path_is_stored():
    inside = str(environment.REPOSITORY / "results" / "clips.csv")
    told = environment.portable(
        {
            "argv": [
                inside,
                f"manifest={inside}",
                "--out=/home/someone/out dir",
                "files=['/data/a.mp4','/data/b.mp4']",
            ],
            "path": Path("/data/kinetics/train.csv"),
            "store": "mongodb://user:secret@host:27017/runs",
            "unit": "km/h and 1/2",
            "relative": "results/clips.csv",
            "routers": "/data/router-*.safetensors,/data/b.safetensors",
        }
    )
    assert told.pop("routers") == "router-*.safetensors,b.safetensors"
    assert told == {
        "argv": [
            "results/clips.csv",
            "manifest=results/clips.csv",
            "--out=out dir",
            "files=['a.mp4','b.mp4']",
        ],
        "path": "train.csv",
        "store": "mongodb://host:27017/runs",
        "unit": "km/h and 1/2",
        "relative": "results/clips.csv",
    }
    assert made(config={"manifest": "/data/kinetics/train.csv"}).config == {"manifest": "train.csv"}


def test_artifacts_are_named_from_the_repository_and_hashed(tmp_path):
    weights = tmp_path / "results" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"abc")
    artifact = records.Artifact.of(weights, root=tmp_path)
    assert artifact.path == "results/weights.bin"
    assert artifact.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(records.RecordError, match="outside the repository"):
        records.Artifact.of(weights, root=tmp_path / "elsewhere")


def test_environment_holds_what_a_record_needs(monkeypatch):
    assert set(ENVIRONMENT) == set(records.ENVIRONMENT_KEYS)
    assert ENVIRONMENT["wall_seconds"] == 1.5
    assert ENVIRONMENT["versions"]["numpy"] == np.__version__
    monkeypatch.setenv("PATH", "")
    without_git = environment.environment()
    assert (without_git["commit"], without_git["dirty"]) == (None, None)


def of_file(content: str, path: str = "results/a.safetensors", **changes):
    return made(artifacts={"checkpoint": records.Artifact(path, content * 64)}, **changes)


def test_a_record_supersedes_that_of_the_file_its_command_has_overwritten(tmp_path):
    def record(content, **changes):
        path, new = records.write_once(of_file(content, **changes), tmp_path, free={"work"}, outcome="checkpoint")
        assert new
        return records.read(path)

    first, elsewhere = record("0"), record("1", path="results/b.safetensors")
    assert first.supersedes is None
    assert elsewhere.supersedes is None
    again = record("2", config={"steps": 100, "work": "there"})
    assert again.supersedes == first.id
    assert again.model["supersedes_because"] == "results/a.safetensors was made again by the same command"
    longer = record("3", config={"steps": 200})
    assert longer.supersedes == again.id
    assert longer.model["supersedes_because"] == "results/a.safetensors was made again with other settings (steps)"
    assert records.query(tmp_path) == [elsewhere, longer]


def test_a_superseding_record_given_again_is_not_written_twice(tmp_path):
    for content in "01":
        path, _ = records.write_once(of_file(content), tmp_path, outcome="checkpoint")
    assert records.write_once(of_file("1"), tmp_path, outcome="checkpoint") == (path, False)


def test_what_a_record_was_told_to_supersede_stays_and_inputs_supersede_nothing(tmp_path):
    first, _ = records.write_once(of_file("0"), tmp_path, outcome="checkpoint")
    measured, _ = records.write_once(of_file("1"), tmp_path)
    assert records.read(measured).supersedes is None
    told, _ = records.write_once(of_file("2", supersedes=first.stem), tmp_path, outcome="checkpoint")
    assert records.read(told).supersedes == first.stem


def test_what_a_killed_writer_left_is_removed_by_the_next_record(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = files._writer().rpartition("-")[0]
    litter = tmp_path / f".some-record.json.{host}-{int(dead.stdout)}.x1y2{files.PARTIAL}"
    alive = tmp_path / f".some-record.json.{files._writer()}.x1y2{files.PARTIAL}"
    for path in (litter, alive):
        path.touch()
    records.write_once(made(), tmp_path)
    assert not litter.exists()
    assert alive.exists()
    lock = records.lock_of(tmp_path)
    lock.touch()
    assert not records.write_once(made(), tmp_path)[1], "nothing new to write"
    assert not lock.exists()
