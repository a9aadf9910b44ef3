"""Shards of the candidate table: merged they are the whole; what is missing, damaged or foreign is named."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evatok.experiments.stage2_curation import my_ranges, share_of
from evatok.experiments.tracking import ConfigError
from evatok.search import candidate_table, table_shards
from evatok.search.candidate_table import CandidateTable, CurationError
from evatok.storage import records, shards
from evatok.storage.environment import environment

ORIGIN = {"levels": [2, 4], "blocks": 2, "tokenizer": "ab" * 32, "precision": "fp32", "data": {"name": "noise"}}
CLIPS, LENGTH = 10, 4


def table(start: int = 0, stop: int = CLIPS, **origin) -> CandidateTable:
    random = np.random.default_rng(0)
    scores = {name: random.random((CLIPS, 4), dtype=np.float32)[start:stop] for name in ("l1", "psnr")}
    return CandidateTable(np.arange(start, stop), scores, {**ORIGIN, **origin})


@pytest.fixture
def folder(tmp_path):
    """All three shards of ten clips."""
    for start, stop in shards.ranges(CLIPS, LENGTH):
        candidate_table.write(table_shards.shard_path(tmp_path / "set", start, stop), table(start, stop))
    return tmp_path / "set"


def same(one: CandidateTable, other: CandidateTable) -> bool:
    scores = one.scores.keys() == other.scores.keys() and all(
        np.array_equal(one.scores[name], other.scores[name]) for name in one.scores
    )
    return scores and np.array_equal(one.clips, other.clips) and one.origin == other.origin


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "table.parquet"
    candidate_table.write(path, table())
    assert same(candidate_table.read(path), table())
    assert candidate_table.read(path).sha256 == table().sha256
    assert [p.name for p in path.parent.iterdir()] == ["table.parquet"]


def test_merged_shards_are_the_whole(folder):
    merged = table_shards.merge(folder, CLIPS, LENGTH)
    assert same(merged, table())
    assert merged.sha256 == table().sha256


def test_a_table_with_a_part_of_unknown_time_has_none(folder):
    assert table_shards.merge(folder, CLIPS, LENGTH).seconds is None
    timed = [dataclasses.replace(table(0, 4), seconds=1.5), dataclasses.replace(table(4, CLIPS), seconds=2.0)]
    assert table_shards.concatenate(timed).seconds == 3.5
    assert table_shards.concatenate([timed[0], table(4, CLIPS)]).seconds is None


def test_identity_covers_origin_clips_and_every_score():
    whole, other = table(), table()
    other.scores["psnr"][3, 2] += 1e-6
    changed = [other, table(tokenizer="cd" * 32), table(1, CLIPS), table().take(np.array([1, 0]))]
    assert len({t.sha256 for t in (whole, *changed)}) == 5


def test_rows_can_be_taken_by_position():
    taken = table(4, 8).take(np.array([3, 0]))
    assert taken.clips.tolist() == [7, 4]
    assert np.array_equal(taken.scores["l1"], table().scores["l1"][[7, 4]])


def test_quality_is_higher_for_better_and_knows_its_metrics():
    whole = table()
    assert np.array_equal(whole.quality("l1"), -whole.scores["l1"].astype(np.float64))
    assert np.array_equal(whole.quality("psnr"), whole.scores["psnr"].astype(np.float64))
    with pytest.raises(CurationError, match="holds l1, psnr, not 'lpips-vgg'"):
        whole.quality("lpips-vgg")


# Damage


def test_a_missing_shard_is_named(folder):
    table_shards.shard_path(folder, 4, 8).unlink()
    with pytest.raises(CurationError, match=r"1 of 3 shards missing, the first for clips 4\.\.7"):
        table_shards.merge(folder, CLIPS, LENGTH)


@pytest.mark.parametrize(
    "origin", [{"tokenizer": "cd" * 32}, {"precision": "bf16"}, {"data": {"name": "other"}}, {"levels": [2, 8]}]
)
def test_a_foreign_shard_is_named(folder, origin):
    path = table_shards.shard_path(folder, 4, 8)
    candidate_table.write(path, table(4, 8, **origin))
    with pytest.raises(CurationError, match=r"0000004-0000008\.parquet: scored by another tokenizer or on other"):
        table_shards.merge(folder, CLIPS, LENGTH)
    with pytest.raises(CurationError, match=f"scored with another {next(iter(origin))}"):
        table_shards.check_origin(path, ORIGIN)


def test_a_shard_of_the_wanted_make_passes(folder):
    table_shards.check_origin(table_shards.shard_path(folder, 0, 4), ORIGIN)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_shard_is_named_with_the_way_out(folder, share):
    path = table_shards.shard_path(folder, 8, 10)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for reading in (
        lambda: table_shards.merge(folder, CLIPS, LENGTH),
        lambda: table_shards.check_origin(path, ORIGIN),
    ):
        with pytest.raises(
            CurationError, match=r"0000008-0000010\.parquet: not a complete .*delete it and score again"
        ):
            reading()


@pytest.mark.parametrize("metadata", [None, {"evatok": "no json"}, {"evatok": "{}"}, {"evatok": "[1]"}])
def test_a_parquet_file_of_other_making_is_refused(tmp_path, metadata):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"clip": [1, 2], "l1": [0.1, 0.2]}).replace_schema_metadata(metadata), path)
    with pytest.raises(CurationError, match="not a complete candidate table"):
        candidate_table.read(path)


def test_scores_of_another_candidate_count_are_refused(tmp_path):
    """Read as rows of four, six scores a clip would shift every clip after the first."""
    path = tmp_path / "table.parquet"
    candidate_table.write(path, table(0, 4))
    schema = pq.read_schema(path).metadata
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(24, np.float32)), 6)
    pq.write_table(pa.table({"clip": pa.array(range(4)), "l1": lists}).replace_schema_metadata(schema), path)
    with pytest.raises(CurationError, match="not a complete candidate table"):
        candidate_table.read(path)


@pytest.mark.parametrize("clips", [[4, 5, 6], [0, 1, 2, 3]])
def test_a_shard_that_does_not_hold_its_clips_is_named(folder, clips):
    candidate_table.write(table_shards.shard_path(folder, 4, 8), table().take(np.array(clips)))
    with pytest.raises(CurationError, match=r"does not hold clips 4\.\.7"):
        table_shards.merge(folder, CLIPS, LENGTH)


@pytest.mark.parametrize("clips", [[3, 2, 1, 0], [5, 4, 6, 7], [4, 5, 6, 6]])
def test_clips_out_of_order_are_refused_when_read(tmp_path, clips):
    candidate_table.write(tmp_path / "table.parquet", table().take(np.array(clips)))
    with pytest.raises(CurationError, match="clips are not in ascending order"):
        candidate_table.read(tmp_path / "table.parquet")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_never_written(tmp_path, value):
    bad = table()
    bad.scores["psnr"][2, 1] = value
    with pytest.raises(CurationError, match="scores psnr must be finite"):
        candidate_table.write(tmp_path / "table.parquet", bad)
    assert not list(tmp_path.iterdir())


def test_scores_of_another_shape_are_never_written(tmp_path):
    bad = dataclasses.replace(table(), clips=np.arange(9))
    with pytest.raises(CurationError, match=r"must be finite \(9, 4\), got \(10, 4\)"):
        candidate_table.write(tmp_path / "table.parquet", bad)


@pytest.mark.parametrize("change", ["scores", "levels", "columns"])
def test_a_table_of_other_content_than_was_written_is_refused(tmp_path, change):
    """Scores of the clips in another order, under other levels, under another metric's name: all are plausible."""
    path = tmp_path / "table.parquet"
    candidate_table.write(path, table())
    arrow = pq.read_table(path)
    if change == "scores":
        for place, name in enumerate(("l1", "psnr"), start=1):
            arrow = arrow.set_column(place, name, arrow[name].take(list(reversed(range(CLIPS)))))
    elif change == "columns":
        arrow = arrow.rename_columns(["clip", "psnr", "l1"]).replace_schema_metadata(arrow.schema.metadata)
    else:
        told = arrow.schema.metadata[b"evatok"].replace(b'"levels": [2, 4]', b'"levels": [2, 8]')
        arrow = arrow.replace_schema_metadata({"evatok": told})
    pq.write_table(arrow, path)
    with pytest.raises(CurationError, match=r"table\.parquet: .*content does not match its sha256"):
        candidate_table.read(path)


def as_before_hashes(path, whole: CandidateTable) -> None:
    """Write a table as before files held the hash of their content."""
    candidate_table.write(path, whole)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"evatok": json.dumps(whole.origin)}), path)


def test_a_table_without_a_hash_is_compared_with_the_records_that_name_it(tmp_path):
    whole = table(data={"name": "noise", "sha256": "aa"})
    path = tmp_path / "table.parquet"
    as_before_hashes(path, whole)
    candidate_table.check_named(path, candidate_table.read(path), tmp_path / "records")  # no record, no name
    record = records.new_record(
        kind="stage2_curation",
        status="toy",
        protocol={"manifest": {"sha256": "aa"}},
        model={"tokenizer": whole.origin["tokenizer"], "table": whole.sha256},
        metrics={"l1": records.Metric(0.5, "", CLIPS, "lower")},
        config={},
        environment=environment(),
    )
    records.write(record, tmp_path / "records")
    candidate_table.check_named(path, candidate_table.read(path), tmp_path / "records")
    scores = {name: np.ascontiguousarray(values[::-1]) for name, values in whole.scores.items()}
    as_before_hashes(path, dataclasses.replace(whole, scores=scores))
    with pytest.raises(CurationError, match=f"not the table that record {record.id} names"):
        candidate_table.check_named(path, candidate_table.read(path), tmp_path / "records")


def test_a_table_with_gaps_is_not_paired_with_the_first_clips_of_the_set():
    gap = table(data={"name": "noise", "split": "train", "sha256": "aa"}).take(np.array([0, 1, 9]))
    with pytest.raises(CurationError, match=r"holds clips 0\.\.9 with gaps"):
        candidate_table.scored_clips(gap, size=16, frames=12)


# Who scores what


@given(clips=st.integers(0, 500), length=st.integers(1, 64))
def test_ranges_cover_every_clip_once(clips, length):
    ranges = shards.ranges(clips, length)
    assert [clip for start, stop in ranges for clip in range(start, stop)] == list(range(clips))
    assert all(0 < stop - start <= length for start, stop in ranges)


@given(clips=st.integers(0, 300), length=st.integers(1, 64), count=st.integers(1, 9))
def test_the_parts_i_of_n_share_the_shards_out(clips, length, count):
    parts = [my_ranges(clips, length, (i, count)) for i in range(count)]
    assert sorted(shard for part in parts for shard in part) == shards.ranges(clips, length)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_split_a_part_further(monkeypatch):
    parts = []
    for i in range(2):
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "3")
            parts += my_ranges(100, 7, (i, 2))
    assert sorted(parts) == shards.ranges(100, 7)


@pytest.mark.parametrize("shard", ["", "1", "2/2", "-1/2", "0/0", "a/b", "0/1/2", "0.5/2"])
def test_a_part_that_is_none_is_refused(shard):
    with pytest.raises(ConfigError, match=r"config key shard: .* is not i/n"):
        share_of(shard)
