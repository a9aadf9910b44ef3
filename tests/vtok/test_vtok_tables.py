"""Tables of VTok from records: which make up a row, differences with paired intervals, verdicts, dashes."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evatok.data.embedded.scene_text import CATEGORIES
from evatok.evaluation import per_clip, protocols
from evatok.experiments import make, recipes
from evatok.reporting import tables, vtok_rows, vtok_tables
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, UNSURE
from evatok.reporting.vtok_rows import BY_NAME, CAMERA_BY_NAME, ROWS, SEEDS, shown
from evatok.storage import records
from evatok.vtok import scoring
from evatok.vtok.scoring import Outcomes, lead
from reproductions.vtok import figure1, freedoom, table3, table4, table5, understanding
from tests.factories import ENVIRONMENT

TRAINED = {"steps": 1500, "train_clips": 4000, "batch": 48, "learning_rate": 1.5e-3, "width": 64}
SCHEDULE = {"final_learning_rate": 2e-5, "warmup": 50, "ema": 0.99}
CONFIG = {**TRAINED, **SCHEDULE, "layers": 3, "heads": 4, "size": "toy", "start": "stills.safetensors"}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(scoring, "DRAWS", 100)


@pytest.fixture
def put(tmp_path):
    """Writes the record of a row: (name, share of right answers, seed, training, domain, **changes of its parents)."""

    def write(name: str, share: float, seed: int = 0, config: dict | None = None, camera: bool = False, **parents: str):
        spec, random = (CAMERA_BY_NAME if camera else BY_NAME)[name], np.random.default_rng(5)
        draws = random.random((600, len(CATEGORIES)))  # the same questions are hard for every row
        outcomes = Outcomes.of(draws < share, np.full(draws.shape, "key"), CATEGORIES)
        kept = per_clip.write(outcomes.arrays(), tmp_path / "per_clip", per_clip.MEASURED)
        protocol = protocols.get(spec.protocol)
        made = {"recipe": {"version": protocol.data_version}, "shape": [protocol.clips, protocol.frames, 64, 64, 3]}
        manifest = {"name": protocol.data, "split": "test", "seed": 0, **made}
        record = records.new_record(
            kind=vtok_rows.KIND,
            status="toy",
            protocol=protocol.to_record(manifest, protocol.clips, None),
            model={
                "strategy": {"name": spec.strategy.name},
                "parents": {"image_encoder": "e", "stills": "s", **parents},
            },
            metrics=outcomes.metrics(),
            config={**CONFIG, "seed": seed, **({"steps": 0} if spec.swap_of else {}), **(config or {})},
            environment=ENVIRONMENT,
            artifacts={per_clip.MEASURED: records.Artifact.of(kept, tmp_path)},
        )
        records.write(record, tmp_path / "records")
        return record

    return write


def rows_of(folder: Path, *names: str):
    return shown(folder / "records", names, folder)


def test_rows_are_means_of_seeds_and_differences_are_of_each_seed(put, tmp_path):
    for seed in SEEDS:
        put("vtok", 0.6 + 0.02 * seed, seed)
        put("frames8", 0.5 + 0.02 * seed, seed)
    rows = rows_of(tmp_path, "vtok", "frames8", "none")
    assert [record.config["seed"] for record in rows["vtok"].records] == list(SEEDS)
    each = [record.metrics["accuracy"].value for record in rows["vtok"].records]
    assert rows["vtok"].value("accuracy") == pytest.approx(np.mean(each))
    assert each[0] < each[1]
    sign = vtok_tables.above(rows, "vtok", "frames8", "-")
    assert sign.verdict == HOLDS
    assert vtok_tables.above(rows, "frames8", "vtok", "-").verdict == FAILS
    assert vtok_tables.above(rows, "vtok", "frames8", "-", least=11).verdict == UNSURE
    assert vtok_tables.above(rows, "vtok", "none", "-").verdict == UNKNOWN
    assert vtok_tables.alike(rows, "vtok", "frames8", "-", within=3).verdict == FAILS
    assert vtok_tables.alike(rows, "vtok", "vtok", "-", within=3).verdict == HOLDS
    assert vtok_tables.reaches(rows, "vtok", "accuracy.motion", 99).verdict == FAILS


def test_seeds_that_disagree_decide_nothing_however_many_clips_they_saw(put, tmp_path):
    """The rule of `claims`: the spread over trainings decides, where there are several."""
    for seed, ours in enumerate((0.9, 0.55, 0.6)):
        put("vtok", ours, seed)
        put("frames8", 0.5, seed)
    rows = rows_of(tmp_path, "vtok", "frames8")
    gains = [
        one.metrics["accuracy"].value - other.metrics["accuracy"].value
        for one, other in zip(rows["vtok"].records, rows["frames8"].records, strict=True)
    ]
    assert min(gains) > 0
    expected = stats.t.interval(0.95, 2, np.mean(gains), stats.sem(gains))
    found = vtok_tables.gain(rows["vtok"], rows["frames8"])
    assert (found.low, found.high) == pytest.approx(expected)
    assert vtok_tables.above(rows, "vtok", "frames8", "-").verdict == UNSURE


def test_seeds_that_agree_by_chance_leave_the_interval_over_clips(put, tmp_path):
    for seed in (0, 1):
        put("vtok", 0.51, seed)
        put("frames8", 0.5, seed)
    rows = rows_of(tmp_path, "vtok", "frames8")
    ours, theirs = rows["vtok"].outcomes[0], rows["frames8"].outcomes[0]
    alone = lead(ours.right - theirs.right, ours.mask())
    assert alone.low < alone.value < alone.high
    assert vtok_tables.gain(rows["vtok"], rows["frames8"]) == (alone.value, alone.low, alone.high)


def test_one_seed_against_several_has_to_be_ahead_of_each(put, tmp_path):
    put("vtok", 0.7)
    for seed, other in enumerate((0.5, 0.7)):
        put("frames8", other, seed)
    rows = rows_of(tmp_path, "vtok", "frames8")
    found = vtok_tables.gain(rows["vtok"], rows["frames8"])
    ours = rows["vtok"].outcomes[0]
    each = [lead(ours.right - other.right, ours.mask()) for other in rows["frames8"].outcomes.values()]
    assert (found.low, found.high) == (min(one.low for one in each), max(one.high for one in each))
    assert each[0].low > 0
    assert vtok_tables.above(rows, "vtok", "frames8", "-").verdict == UNSURE


def test_a_row_of_a_longer_training_does_not_meet_shorter_ones(put, tmp_path):
    put("frames8", 0.5)
    put("vtok", 0.6)
    put("swap", 0.4)
    put("vtok", 0.9, config={"steps": 9000})
    rows = rows_of(tmp_path, "vtok", "frames8", "swap")
    assert rows["vtok"].value("accuracy") == pytest.approx(60, abs=2)
    assert rows["swap"].records, "measured without a training of its own"
    put("frames8", 0.7, config={"steps": 9000})
    assert rows_of(tmp_path, "vtok", "frames8")["vtok"].value("accuracy") == pytest.approx(90, abs=2), "of ties"
    put("frames8", 0.9, config={"ema": 0.5})
    assert rows_of(tmp_path, "vtok", "frames8")["frames8"].value("accuracy") == pytest.approx(70, abs=2)


def test_a_mean_of_seeds_names_the_record_of_each(put, tmp_path):
    made = [put("vtok", 0.6 + 0.1 * seed, seed) for seed in SEEDS]
    (cell, *_) = vtok_tables.cells_of(rows_of(tmp_path, "vtok"), {}, ())
    assert cell.record.split() == [record.id for record in made]


def test_records_of_other_trainings_do_not_mix(put, tmp_path):
    put("vtok", 0.9, image_encoder="another")
    put("vtok", 0.6)
    put("frames8", 0.5)
    rows = rows_of(tmp_path, "vtok", "frames8")
    assert rows["vtok"].value("accuracy") == pytest.approx(60, abs=2)
    put("frames8", 0.7, image_encoder="another")
    put("none", 0.2, image_encoder="another")
    assert rows_of(tmp_path, "vtok", "frames8")["vtok"].value("accuracy") == pytest.approx(90, abs=2), (
        "newest of equals"
    )


def test_a_row_from_scratch_or_of_fewer_clips_is_none_of_the_table(put, tmp_path):
    put("vtok", 0.6, config={"start": ""})
    assert rows_of(tmp_path, "vtok")["vtok"].records == []
    put("vtok", 0.6, config={"steps": 10})
    put("vtok", 0.7)
    assert rows_of(tmp_path, "vtok")["vtok"].value("accuracy") == pytest.approx(70, abs=2), "the longest training"


def test_clips_of_another_domain_have_a_table_of_their_own(put, tmp_path, monkeypatch, capsys):
    trained = {"train_clips": vtok_rows.CAMERA_CLIPS}
    put("vtok", 0.9)
    put("vtok", 0.3, config=trained, camera=True)
    put("frames8", 0.4, config=trained, camera=True)
    monkeypatch.setattr(vtok_tables, "shown", lambda folder, names, **family: shown(folder, names, tmp_path, **family))
    assert vtok_tables.main(freedoom.TABLE, "", ["--results", str(tmp_path)]) == 0
    text = (tmp_path / "tables" / "vtok_freedoom.md").read_text()
    assert "| VTok: key frame 16, each later frame 1  | 31 (-)" in text
    claimed = (tmp_path / "tables" / "vtok_freedoom_claims.csv").read_text()
    assert f"{FAILS}" in claimed
    assert "--of freedoom --only none" in capsys.readouterr().err
    found = recipes.wanted(["vtok-freedoom"])
    assert len(found) == 2 + len(CAMERA_BY_NAME) * len(SEEDS)
    assert {recipe.settings["train_clips"] for recipe in found[2:]} == {vtok_rows.CAMERA_CLIPS}
    with pytest.raises(SystemExit):
        understanding.main(["--of", "freedoom", "--only", "lavit"])


def test_rows_of_a_longer_training_take_no_shorter_one(put, tmp_path):
    put("frames8", 0.5)
    put("vtok", 0.6)
    put("vtok", 0.9, config=dict(vtok_rows.LONGER))
    longer = shown(tmp_path / "records", ("frames8", "vtok"), tmp_path, family=vtok_rows.LONGER_TRAINED)
    assert longer["frames8"].records == []
    assert longer["vtok"].value("accuracy") == pytest.approx(90, abs=2)
    assert rows_of(tmp_path, "frames8", "vtok")["vtok"].value("accuracy") == pytest.approx(60, abs=2)
    asked = {recipe.settings.get("train_clips") for recipe in recipes.wanted(["vtok-longer"])[2:]}
    assert asked == {vtok_rows.LONGER["train_clips"]}


@pytest.mark.parametrize("module", [table3, table4, table5])
def test_tables_are_written_with_dashes_where_nothing_is_measured(module, put, tmp_path, monkeypatch, capsys):
    put("vtok", 0.6)
    put("swap", 0.4)
    monkeypatch.setattr(vtok_tables, "shown", lambda folder, names, **family: shown(folder, names, tmp_path, **family))
    assert vtok_tables.main(module.TABLE, "", ["--results", str(tmp_path)]) == 0
    text = (tmp_path / "tables" / f"{module.TABLE.name}.md").read_text()
    assert "| VTok: key frame 16, motion 6 a second" in text
    assert "46 (" in text
    assert "moving-shapes" in text.splitlines()[0]
    claimed = (tmp_path / "tables" / f"{module.TABLE.name}_claims.md").read_text()
    assert "not measured" in claimed
    assert "understanding.py --only none" in capsys.readouterr().err


def test_a_row_of_every_table_has_a_recipe_and_lengths_are_the_paper_s():
    for module in (table3, table4, table5):
        assert set(module.TABLE.rows) <= set(BY_NAME)
        if not module.TABLE.paper:
            continue
        paper = tables.paper_values(module.TABLE.paper)
        for name in {row for row, _ in paper}:
            printed = paper[name, "tokens"]
            assert BY_NAME[name].strategy.length() == (31 if name == "key1" else printed), "Table 5 prints 30 for 31"
            parts = [paper[name, f"accuracy.{category}"] for category in CATEGORIES]
            assert np.mean(parts) == pytest.approx(paper[name, "accuracy"], abs=0.07)


def test_the_recipes_train_what_a_row_starts_from_first_and_every_row_with_every_seed():
    found = recipes.wanted(["vtok"])
    assert [recipe.experiment for recipe in found[:3]] == ["train_image_encoder", "vtok_stills", "vtok_understanding"]
    assert len({recipe.outcome for recipe in found}) == len(found) == 2 + len(ROWS) * len(SEEDS)
    done = {found[0].outcome}
    for recipe in found[1:]:
        assert recipe.settings["encoder"] in done
        assert recipe.settings.get("start", found[0].outcome) in done
        done.add(recipe.outcome)


def test_a_row_alone_is_trained_in_slices_with_what_it_starts_from(monkeypatch):
    ran: dict[str, dict] = {}
    monkeypatch.setattr(make, "state_of", lambda recipe: "")
    monkeypatch.setattr(make, "is_made", lambda recipe: recipe.name in ran)
    monkeypatch.setattr(make, "run", lambda recipe, **further: ran.update({recipe.name: further}))
    monkeypatch.setattr(understanding.subprocess, "run", lambda *_, **__: None)
    assert understanding.main(["--only", "swap", "--seeds", "0", "--quick", "--minutes", "5"]) == 0
    assert list(ran) == ["vtok-image-encoder", "vtok-stills", "vtok-frames8-0", "vtok-swap-0"]
    assert all(0 < further["minutes"] <= 5 for further in ran.values())
    assert ran["vtok-frames8-0"]["steps"] == understanding.QUICK["vtok_understanding"]["steps"]
    assert "steps" not in ran["vtok-swap-0"], "what is measured without training stays so"


def test_figure_1_follows_the_formula(tmp_path):
    assert figure1.main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "vtok_figure1.svg").exists()
    found = figure1.lengths().set_index(["strategy", "seconds"])["tokens"]
    assert found["VTok, motion 6 a second", 5] == 46
    assert found["frames, 1 a second", 3] == 64


def test_the_judge_of_samples_is_no_row(put, tmp_path):
    for seed in (0, 1):
        put("vtok", 0.8, seed=seed)
    put("vtok", 0.2, seed=vtok_rows.JUDGE_SEED)
    row = vtok_rows.shown(tmp_path / "records", ("vtok",), tmp_path)["vtok"]
    assert [record.config["seed"] for record in row.records] == [0, 1]
    assert sorted(row.outcomes) == [0, 1]
