"""VBench's result files become the columns of VTok's Table 2, by VBench's own ranges and weights."""

import json
from pathlib import Path

import pytest

from evatok.alignment import vbench
from evatok.alignment.vbench import QUALITY, SEMANTIC, VBenchError
from evatok.alignment.vbench.__main__ import main
from evatok.reporting import tables
from evatok.storage import records


def written(path: Path, scores: object) -> Path:
    path.write_text(json.dumps(scores))
    return path


def test_total_weighs_quality_four_times_and_dynamics_half():
    best = {name: of.high for name, of in {**QUALITY, **SEMANTIC}.items()}
    assert vbench.summary(best) == pytest.approx({"total": 100, "quality": 100, "semantic": 100})
    still = vbench.summary({**best, "dynamic_degree": 0.0})
    assert still["quality"] == pytest.approx(100 * 6 / 6.5)
    wordless = vbench.summary({**best, **{name: of.low for name, of in SEMANTIC.items()}})
    assert (wordless["semantic"], wordless["total"]) == pytest.approx((0, 80))


def test_of_the_papers_rows_only_the_cited_one_follows_these_weights():
    """HunyuanVideo's total is (4 quality + semantic) / 5; those of VTok's own two rows are printed higher."""
    paper = tables.paper_values("vtok_table2")
    more = {row: paper[row, "total"] - (4 * paper[row, "quality"] + paper[row, "semantic"]) / 5 for row, _ in paper}
    assert more == pytest.approx({"HunyuanVideo": 0.0, "frames": 0.40, "vtok": 0.75}, abs=0.01)


def test_a_score_is_missed_and_not_counted_as_zero(tmp_path, capsys):
    scores = {name: [0.9, [{"video_path": "a.mp4", "video_results": 0.9}]] for name in [*QUALITY, *SEMANTIC]}
    part = {name.replace("_", " "): value for name, value in scores.items() if name != "scene"}
    file, folder = written(tmp_path / "part.json", part), tmp_path / "records"
    assert main([str(file), "--name", "mine", "--records", str(folder)]) == 0
    assert "no total: scene missing" in capsys.readouterr().out
    (path,) = folder.glob("*.json")
    record = records.read(path)
    assert "vbench.quality" in record.metrics
    assert not {"vbench.total", "vbench.semantic"} & record.metrics.keys()
    rest = written(tmp_path / "rest.json", {"scene": scores["scene"], "note": "other keys are not VBench's"})
    assert vbench.summary(vbench.read([file, rest])).keys() == {"total", "quality", "semantic"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "an object with a list per dimension"),
        ({"colour": 0.5}, "none of VBench's sixteen dimensions"),
        ({"color": [85.0]}, "color is 85.0, which is no score from 0 to 1"),
        ({"color": "high"}, "color is 'high'"),
    ],
)
def test_files_that_are_no_results_are_refused(content, told, tmp_path):
    with pytest.raises(VBenchError, match=told):
        vbench.read([written(tmp_path / "results.json", content)])


def test_a_dimension_in_two_files_is_refused(tmp_path):
    files = [written(tmp_path / name, {"color": 0.5}) for name in ("a.json", "b.json")]
    with pytest.raises(VBenchError, match="color is in another file too"):
        vbench.read(files)
