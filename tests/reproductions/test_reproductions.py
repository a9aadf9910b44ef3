"""What is shipped in results/ fits together: tables from records, README from tables, Table 3 from its inputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evatok.data.clips import ClipSet, pixels_sha256
from evatok.evaluation import router_study
from evatok.reporting import claims, overview, router_claims, router_tables, tables
from evatok.routing.trained_router import RoutingError
from evatok.search import candidate_table
from evatok.storage import records
from evatok.storage.files import sha256_file
from reproductions import table3

RESULTS = records.REPOSITORY / "results"


@pytest.fixture
def shelf(tmp_path):
    """A copy of the shipped inputs of Table 3, so that nothing in the repository is written."""
    for name in ("checkpoints", "records", "tables"):
        shutil.copytree(RESULTS / name, tmp_path / name)
    return router_study.Shelf(tmp_path, "toy", tmp_path / "checkpoints")


def test_both_readmes_show_the_stored_tables():
    text = (records.REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert overview.with_highlights(text, RESULTS / "tables") == text
    assert overview.page(RESULTS / "tables") == (RESULTS / "README.md").read_text(encoding="utf-8")


def test_what_the_readme_claims_is_what_the_items_say(tmp_path):
    """And an item that was not built is not measured, where a claim that its item lacks is an error."""
    shown = overview.highlights(RESULTS / "tables").set_index("claim")
    assert len(shown) == len(overview.HIGHLIGHTS)
    for highlight, (_, line) in zip(overview.HIGHLIGHTS, shown.iterrows(), strict=True):
        [file] = overview.claims_files(RESULTS / "tables", highlight.item)
        told = pd.read_csv(file).set_index("name").loc[highlight.name]
        assert line.to_dict() == told[["paper", "ours", "verdict"]].to_dict()
    assert set(overview.highlights(tmp_path)["verdict"]) == {claims.UNKNOWN}
    empty = pd.DataFrame(columns=["name", "paper", "ours", "verdict"])
    empty.to_csv(tmp_path / f"{overview.HIGHLIGHTS[0].item}_signs.csv", index=False)
    with pytest.raises(tables.TableError, match="no claim"):
        overview.highlights(tmp_path)
    with pytest.raises(tables.TableError, match="where the table of claims goes"):
        overview.with_highlights("a README without its place", RESULTS / "tables")


def test_every_paper_number_is_cited():
    for path in (RESULTS / "paper").glob("*.json"):
        content = json.loads(path.read_text())
        assert "arXiv" in content["source"], path.name
        assert all({"row", "metric", "value", "unit"} <= entry.keys() for entry in content["values"])


@pytest.mark.parametrize("name", router_tables.NAMES.values())
def test_table3_shows_what_its_records_hold(name):
    frame = pd.read_csv(RESULTS / "tables" / f"{name}.csv")
    assert list(frame.columns) == tables.COLUMNS
    for line in frame.itertuples():
        record = records.read(RESULTS / "records" / f"{line.record}.json")
        metric = record.metrics[f"{line.row.split('/')[1]}.{line.metric}"]
        assert line.ours == pytest.approx(metric.value, abs=1e-4)
        assert (line.n, line.status) == (metric.n, record.status)


def test_shipped_files_are_those_of_their_records():
    for record in records.query(RESULTS / "records"):
        for artifact in record.artifacts.values():
            path = records.REPOSITORY / artifact.path
            if path.is_relative_to(RESULTS / "work") or path.name.startswith("generator-"):
                continue  # not shipped; a generator's tables of its large vocabulary are 20 MB
            assert sha256_file(path) == artifact.sha256, f"{record.id}: {artifact.path}"


@pytest.mark.slow
def test_table3_measures_what_it_shipped(shelf, capsys, monkeypatch):
    """All routers on one set; one set of games is only regenerated, as routers on it take as long again."""
    measured, regenerated = router_study.SETS["validation"], router_study.SETS["unseen_by_proxy"]
    scored_set = router_study.scored_set

    def some(shelf, name, workers):
        scored = scored_set(shelf, name, workers) if name in (measured, regenerated) else None
        return scored if name == measured else None

    monkeypatch.setattr(router_study, "scored_set", some)
    before = {path.name for path in (shelf.root / "records").iterdir()}
    assert table3.main(["--results", str(shelf.root), "--workers", "1"]) == 0
    assert capsys.readouterr().err.count("hash as recorded") == 2
    added = [name for name in {path.name for path in (shelf.root / "records").iterdir()} - before]
    assert not added, "a new measurement would mean that the shipped record says something else"
    for name in router_tables.NAMES.values():
        again, shipped = (pd.read_csv(root / "tables" / f"{name}.csv") for root in (shelf.root, RESULTS))
        pd.testing.assert_frame_equal(again, shipped)
    assert (shelf.root / "figures" / "table3_clips.png").stat().st_size > 10_000


def test_unseen_rows_come_from_their_record_where_clips_cannot_be_made(shelf, monkeypatch, capsys):
    def no_arcade(*_, **__):
        raise ImportError('the Arcade set needs ale-py: pip install "evatok[arcade]"')

    monkeypatch.setattr(candidate_table, "clips_again", no_arcade)
    assert router_study.scored_set(shelf, "arcade-seen-validation", 1) is None
    assert "evatok[arcade]" in capsys.readouterr().err
    record = router_study.stored_record(shelf, "unseen", shelf.comparison("matched"))
    cells = router_tables.to_cells(record, "unseen", "toy", tables.paper_values("table3"))
    assert {cell.record for cell in cells} == {record.id}


@pytest.mark.slow
def test_clips_of_another_making_are_scored_anew(shelf, monkeypatch, capsys):
    few = candidate_table.read(shelf.candidates("freedoom-validation")).take(np.arange(1))
    candidate_table.write(shelf.candidates("few"), few)
    clips = np.random.default_rng(0).integers(0, 256, (1, 16, 64, 64, 3), dtype=np.uint8)
    manifest = {"name": "freedoom", "versions": {"vizdoom": "9.9"}, "sha256": pixels_sha256(clips)}
    made = ClipSet(clips, pd.DataFrame(index=range(1)), manifest)
    monkeypatch.setattr(candidate_table, "clips_again", lambda *_, **__: made)
    scored = router_study.scored_set(shelf, "few", 1)
    told = capsys.readouterr().err
    assert "scoring them again" in told
    assert "9.9" in told
    assert scored.table.origin["data"]["sha256"] == manifest["sha256"]
    assert not np.allclose(scored.table.scores["l1"], few.scores["l1"])


@pytest.mark.parametrize(
    ("ours", "rival", "spread", "verdict"),
    [
        (97.0, 85.0, 0.5, "holds"),
        (86.0, 85.0, 0.5, "undecided"),
        (82.0, 85.0, 0.5, "does not hold"),
        (97.0, 85.0, None, "undecided"),
    ],
)
def test_a_router_is_better_beyond_the_interval_of_the_difference(ours, rival, spread, verdict):
    (record, *_) = records.query(RESULTS / "records", kind="table3")
    values = {"router.percentile": ours, "best_uniform.percentile": rival}
    metrics = {name: records.Metric(value, "%", 320, "higher", spread) for name, value in values.items()}
    sign = router_claims.better("some", replace(record, metrics=metrics), "router", "best_uniform", {})
    assert sign.verdict == verdict
    assert ("± 1.39" in sign.ours) == (spread is not None)
    assert router_claims.better("some", record, "router", "sofa", {}).verdict == claims.UNKNOWN


def test_a_tampered_router_is_refused(shelf, capsys):
    path = shelf.router("hard", "matched")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        table3.main(["--results", str(shelf.root)])
    assert "does not match the checkpoint's sha256" in capsys.readouterr().err


def test_a_table_that_the_routers_do_not_name_is_refused_before_anything_is_measured(shelf, capsys):
    path = shelf.candidates("freedoom-validation")
    table = candidate_table.read(path)
    swapped = {name: scores[::-1].copy() for name, scores in table.scores.items()}
    candidate_table.write(path, replace(table, scores=swapped))
    before = sorted((shelf.root / "records").iterdir())
    with pytest.raises(SystemExit, match="2"):
        table3.main(["--results", str(shelf.root)])
    assert "not the table that the routers were validated on" in capsys.readouterr().err
    assert sorted((shelf.root / "records").iterdir()) == before


def test_scores_of_another_tokenizer_are_refused(shelf):
    router = shelf.trained()
    router.check_scored_by(router.checkpoint.parents["tokenizer"])
    with pytest.raises(RoutingError, match="these are of cdcdcdcdcdcd: score the clips with that tokenizer"):
        router.check_scored_by("cd" * 32)
