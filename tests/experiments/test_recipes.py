"""Recipes are command lines that exist, in an order that works; what is outdated is told from what is made."""

import importlib
import itertools
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sacred.arg_parser import get_config_updates

from evatok.experiments import (
    keys,
    made,
    make,
    recipes,
    stage1_proxy,
    stage5_generator,
    videoflextok_recipes,
    videoflextok_sweeps,
)
from evatok.experiments import videoflextok_generators as generators
from evatok.experiments.recipes import Recipe, RecipeError
from evatok.generation import flops
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import GeneratorConfig
from evatok.reporting import final_commands, generation_commands
from evatok.reporting.generation_rows import RECONSTRUCTION
from evatok.search import candidate_table
from evatok.search.candidate_table import CandidateTable
from evatok.storage import checkpoints, records
from evatok.tokenizers.evatok import TOKENIZER_SIZES
from tests.factories import ENVIRONMENT, configured

KNOWN = recipes.every_recipe()


def test_every_recipe_sets_keys_that_its_experiment_has_to_values_they_may_have():
    for recipe in KNOWN.values():
        ex = importlib.import_module(f"evatok.experiments.{recipe.experiment}").ex
        if recipe.named:
            assert recipe.named in ex.named_configs, recipe.name
        declared = keys.of(recipe.experiment, list(recipe.settings))
        for name, value in recipe.settings.items():
            keys.settled(declared[name], name, value)


def test_what_a_recipe_needs_comes_before_it_and_writes_what_it_reads():
    order = [recipe.name for recipe in recipes.wanted(["all", "scratch"])]
    assert sorted(order) == sorted(KNOWN), "each once"
    made = {recipe.outcome for recipe in KNOWN.values() if recipe.outcome}
    for recipe in KNOWN.values():
        assert all(order.index(need) < order.index(recipe.name) for need in recipe.needs)
        assert set(recipe.parents.values()) <= made, recipe.name


@pytest.mark.parametrize("script", ["table1", "main_table1", "main_table5"])
def test_tables_of_finals_name_recipes_that_are_there(script):
    module = importlib.import_module(f"reproductions.{script}")
    for table in (module.TABLE, *([module.UNSEEN] if script == "main_table1" else [])):
        for spec in filter(lambda spec: spec.trained, table.specs):
            recipe = KNOWN[final_commands.recipe(spec, table.protocol)]
            trained = KNOWN[recipe.needs[0]].settings
            assert (recipe.settings["protocol"], trained["seed"]) == (table.protocol, 0)
            assert (trained["assignment"], trained["discriminator"]) == (
                spec.trained["assignment"],
                spec.trained["discriminator"],
            )
            assert ("alignment" in trained) == bool(spec.trained.get("alignment"))
            assert recipe.settings["assignment"].startswith(spec.measured)


@pytest.mark.parametrize("script", ["main_table2", "main_table3", "main_table4", "class_consistency"])
def test_tables_of_generators_name_recipes_that_are_there(script):
    module = importlib.import_module(f"reproductions.{script}")
    tables = (module.TABLE, *([module.GUIDED] if script == "main_table2" else []))
    sources = {source for source, *_ in module.COLUMNS.values()}
    for table, source in itertools.product(tables, sources):
        for spec in filter(lambda spec: spec.trained, table.specs):
            recipe = KNOWN[generation_commands.recipe_of(spec, source, table)]
            assert recipe.experiment == ("evaluate" if source == RECONSTRUCTION else "sample"), recipe.name
            if recipe.experiment == "sample":
                generator = KNOWN[recipe.needs[0]].settings
                assert (generator["assignment"], generator["task"]) == (spec.measured, source)
                assert (recipe.settings["guidance"] != 1) == table.guided


def test_a_name_brings_what_it_needs_and_no_more():
    names = [recipe.name for recipe in recipes.wanted(["router-toy-pyramid-wq1.2"])]
    assert names == [
        "proxy-toy-motion-start",
        "proxy-toy-motion",
        "scores-freedoom-train",
        "scores-freedoom-validation",
        "router-toy-pyramid-wq1.2",
    ]
    with pytest.raises(RecipeError, match="no recipe or group called 'table9'"):
        recipes.wanted(["table9"])


@pytest.mark.parametrize("name", ["proxy-toy-motion-start", "proxy-toy-motion"])
def test_recipes_of_the_proxy_are_the_trainings_that_made_the_shipped_one(name):
    shipped = checkpoints.load(records.REPOSITORY / KNOWN["proxy-toy-motion"].outcome)
    made_by = shipped.sha256 if name == "proxy-toy-motion" else shipped.parents["start"]
    found = records.query(make.RECORDS, "stage1_proxy", superseded=True)
    (record,) = (r for r in found if r.model["sha256"] == made_by)
    told = configured(stage1_proxy.ex, "embedded", **KNOWN[name].settings)
    for key in ("data", "levels", "steps", "batch", "learning_rate", "seed", "perceptual"):
        assert told.get(key) == record.config.get(key), key


def test_all_is_what_ships_and_a_table_from_scratch_lies_elsewhere():
    shipped = recipes.wanted(["all"])
    assert not any(recipe.name.startswith("scratch-") for recipe in shipped)
    for recipe in recipes.wanted(["scratch"]):
        places = [value for value in recipe.settings.values() if str(value).startswith("results/")]
        assert places
        assert all(place.startswith("results/toy/") for place in [recipe.outcome, *places])


def test_a_swapped_row_comes_after_the_one_whose_model_it_measures():
    names = [recipe.name for recipe in recipes.wanted(["vtok-swap-1"])]
    assert names == ["vtok-image-encoder", "vtok-stills", "vtok-frames8-1", "vtok-swap-1"]
    swap = KNOWN["vtok-swap-1"]
    assert (swap.settings["steps"], swap.settings["start"]) == (0, KNOWN["vtok-frames8-1"].outcome)


def test_rows_of_a_videoflextok_table_differ_in_the_key_that_it_is_about_and_in_nothing_else():
    def told(row, seed):
        kept = KNOWN[f"videoflextok-row-{row}-{seed}"].settings
        return {key: value for key, value in kept.items() if key not in ("work", "checkpoint")}

    for row, key in (("flat", "form"), ("full", "decoder_mask"), ("all", "kept"), ("unaligned", "alignment")):
        assert set(told(row, 0).items()) - set(told("2d", 0).items()) == {(key, told(row, 0)[key])}
    assert {told("flat", seed)["seed"] for seed in (0, 1, 2)} == {0, 1, 2}


def test_what_measures_a_videoflextok_tokenizer_comes_after_it_and_loads_it():
    by_outcome = {recipe.outcome: recipe.name for recipe in KNOWN.values() if recipe.outcome}
    for name in recipes.groups()["videoflextok"]:
        if KNOWN[name].experiment == "evaluate":
            assert by_outcome[KNOWN[name].settings["checkpoint"]] in KNOWN[name].needs, name


def test_files_of_two_recipes_never_share_a_name_or_a_training_folder():
    outcomes = [recipe.outcome for recipe in KNOWN.values() if recipe.outcome]
    assert len(outcomes) == len(set(outcomes))
    trained = [
        r.settings["work"]
        for r in KNOWN.values()
        if r.experiment.startswith(("stage3", "stage4", "stage5", "videoflextok_stage"))
    ]
    assert len(trained) == len(set(trained))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A repository with a proxy and a router; `saved(name, parents)` writes another."""
    for module in (make, made):
        monkeypatch.setattr(module, "REPOSITORY", tmp_path)

    def saved(name: str, value: float = 1.0, **parents: str) -> str:
        module = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(module.weight, value)
        return checkpoints.save(tmp_path / name, module, kind="router", config={}, parents=parents)

    return saved


def test_an_artefact_of_other_parents_is_outdated(shelf):
    recipe = replace(KNOWN["router-toy-hard-matched"], outcome="router.safetensors", parents={"tokenizer": "proxy"})
    assert made.state_of(recipe) == ""
    proxy = shelf("proxy")
    shelf("router.safetensors", tokenizer=proxy)
    assert made.state_of(recipe) == "made"
    shelf("proxy", 2.0)
    assert made.state_of(recipe) == "outdated"


def test_a_router_of_another_table_and_a_table_of_fewer_clips_are_outdated(shelf, tmp_path):
    def scored(clips: int) -> str:
        origin = {"levels": [1, 2], "blocks": 2, "tokenizer": "a", "data": {}, "precision": "fp32"}
        made = CandidateTable(np.arange(clips), {"l1": np.ones((clips, 4), np.float32)}, origin)
        candidate_table.write(tmp_path / "train.parquet", made)
        return made.sha256

    parents = {"train_table": "train.parquet"}
    router = replace(KNOWN["router-toy-hard-matched"], outcome="router.safetensors", parents=parents)
    scores = replace(KNOWN["scores-freedoom-train"], outcome="train.parquet", parents={}, settings={"clips": 3})
    shelf("router.safetensors", train_table=scored(2))
    assert (made.state_of(router), made.state_of(scores)) == ("made", "outdated")
    scored(3)
    assert (made.state_of(router), made.state_of(scores)) == ("outdated", "made")


@pytest.fixture
def chain(monkeypatch):
    """(states of three recipes, each made from the one before) -> what is run for the last, which leaves a record."""
    names = ("raw", "middle", "end", "measured")
    made = [
        Recipe(name, "evaluate", outcome="" if name == "measured" else name, needs=names[max(0, i - 1) : i])
        for i, name in enumerate(names)
    ]
    monkeypatch.setattr(recipes, "every_recipe", lambda: {recipe.name: recipe for recipe in made})
    monkeypatch.setattr(recipes, "groups", dict)

    def run_for(raw, middle, end, **told):
        states = {"raw": raw, "middle": middle, "end": end}
        monkeypatch.setattr(make, "state_of", lambda recipe: states.get(recipe.name, ""))
        return [recipe.name for recipe in make.to_make(["measured"], **told)]

    return run_for


def test_what_is_missing_is_made_only_for_what_is_made_from_it(chain):
    assert chain("", "", "") == ["raw", "middle", "end", "measured"]
    assert chain("", "", "made") == ["measured"], "a file that ships needs nothing that it was made from"
    assert chain("", "made", "") == ["end", "measured"]


def test_what_rests_on_something_outdated_is_made_again(chain):
    assert chain("outdated", "made", "made") == ["raw", "middle", "end", "measured"]
    assert chain("made", "outdated", "made") == ["middle", "end", "measured"]
    assert chain("", "outdated", "made") == ["raw", "middle", "end", "measured"]


def recorded(recipe, *, sha256="", parents=None, **changes):
    """A record as the recipe's command writes it, with some of its configuration changed."""
    return records.new_record(
        kind=recipe.experiment,
        status="toy",
        protocol={"name": "any"},
        model={"sha256": sha256, "parents": parents or {}},
        metrics={"psnr": records.Metric(25.0, "dB", 320, "higher")},
        config={**recipe.settings, "batch": 16, **changes},
        environment=ENVIRONMENT,
    )


def test_a_record_tells_of_a_recipe_if_it_has_its_configuration_wherever_its_pictures_went(shelf):
    recipe = KNOWN["evaluate-final-uniform-transformer-1-uniform"]
    assert made.is_recorded(recipe, [recorded(recipe, output="elsewhere", work="elsewhere", show=0)])
    assert not made.is_recorded(recipe, [recorded(recipe, metrics="psnr")])
    assert not made.is_recorded(recipe, [recorded(recipe, checkpoint="results/work/other.safetensors")])
    assert not made.is_recorded(recipe, [recorded(KNOWN["classes-seen-final-uniform"])])


def test_a_file_that_is_not_there_counts_by_the_record_of_what_makes_it(shelf, monkeypatch):
    learnt = Recipe(
        "taught", "stage5_generator", {"steps": 5, "checkpoint": "new/name.safetensors"}, "", "new/name.safetensors"
    )
    drawn = Recipe("drawn", "sample", {"generator": learnt.outcome, "kept": 4})
    monkeypatch.setattr(made, "every_recipe", lambda: {"taught": learnt})
    taught = recorded(learnt, sha256="one", checkpoint="old/name.safetensors")
    sample = recorded(drawn, sha256="one", generator="old/name.safetensors")
    assert made.is_recorded(learnt, [taught]), "an output, wherever it went"
    assert made.is_recorded(drawn, [taught, sample])
    assert not made.is_recorded(drawn, [sample]), "of an unknown generator"
    longer = recorded(learnt, sha256="one", checkpoint="old/name.safetensors", steps=6)
    assert not made.is_recorded(drawn, [longer, sample]), "of another training"


def test_a_record_of_a_file_since_replaced_tells_nothing_of_the_new_one(shelf, tmp_path):
    recipe = Recipe("measured", "evaluate", {"checkpoint": "final.safetensors", "router": "router.safetensors"})
    final, router = shelf("final.safetensors"), shelf("router.safetensors", 2.0)
    assert made.is_recorded(recipe, [recorded(recipe, sha256=final, parents={"router": router})])
    assert not made.is_recorded(recipe, [recorded(recipe, sha256="older", parents={"router": router})])
    assert not made.is_recorded(recipe, [recorded(recipe, sha256=final, parents={"router": "older"})])
    assert made.is_recorded(recipe, [recorded(recipe, sha256=final)]), "it used no router"
    moved = replace(recipe, settings={**recipe.settings, "checkpoint": "elsewhere.safetensors"})
    shutil.copy(tmp_path / "final.safetensors", tmp_path / "elsewhere.safetensors")
    assert made.is_recorded(moved, [recorded(recipe, sha256=final, parents={"router": router})]), "the same contents"
    started = Recipe("seams", "videoflextok_long", {"tokenizer": "final.safetensors"})
    assert made.is_recorded(started, [recorded(started, sha256=final, parents={"tokenizer": "its start"})])


def test_what_a_record_tells_is_made_only_for_what_none_tells(chain, monkeypatch):
    monkeypatch.setattr(make, "is_recorded", lambda recipe, told: recipe.name in told)
    assert chain("", "", "", recorded=["measured"]) == []
    assert chain("", "", "", recorded=["raw", "middle", "end"]) == ["raw", "middle", "end", "measured"]
    assert chain("made", "outdated", "made", recorded=["measured"]) == ["middle", "end", "measured"]


def test_what_is_measured_of_todays_files_is_not_measured_again_by_a_script(chain, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(make, "run", lambda recipe, **_: ran.append(recipe.name))
    monkeypatch.setattr(make, "is_made", lambda recipe: True)
    monkeypatch.setattr(make, "is_recorded", lambda recipe, found: recipe.name == "measured" and found != ())
    assert chain("made", "made", "") == ["end", "measured"]
    make.make_in_time(["measured"], 0.0)
    assert ran == ["end"]
    make.make_in_time(["measured"], 0.0, further=lambda recipe: {"steps": 2})
    assert ran == ["end", "end", "measured"], "a quick run is another measurement"


def test_again_and_unrecorded_contradict_each_other(capsys):
    with pytest.raises(SystemExit):
        make.main(["--again", "--unrecorded", "finals"])
    assert "pass one of them" in capsys.readouterr().err


def test_a_dry_run_prints_the_commands_of_what_is_not_made_and_runs_none(shelf, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it ran"))
    assert make.main(["--dry-run", "scores-freedoom-test"]) == 0
    told = capsys.readouterr().out
    assert "3 of 3 to make, about 3.9 hours" in told
    assert "python -m evatok.experiments.stage1_proxy with embedded checkpoint=" in told
    assert "shard=1/2" in told.replace("'", "").replace('"', "")


def test_shares_run_side_by_side_and_a_failure_says_which_recipe_and_how_to_resume(shelf, tmp_path, monkeypatch):
    script = "import sys, pathlib; pathlib.Path('share-' + sys.argv[1][0]).touch(); sys.exit(int(sys.argv[1][0]) * 7)"

    def command(self, **further):
        return ["-c", script, further.get("shard", "0")]

    monkeypatch.setattr(recipes.Recipe, "command", command)
    with pytest.raises(
        make.MakeError, match=r"scores-freedoom-test exited with code 7; .* same command again to resume"
    ):
        make.run(KNOWN["scores-freedoom-test"])
    assert {path.name for path in tmp_path.glob("share-*")} == {"share-0", "share-1"}


def test_the_command_line_is_one_that_a_user_could_type():
    command = KNOWN["router-toy-pyramid-wq1.2"].command(threads=1)
    assert command[:4] == ["-m", "evatok.experiments.stage3_router", "with", "embedded"]
    assert {"router=pyramid", "steps=3000", "threads=1", "token_share=0.0"} <= set(command)
    assert sys.executable not in command


def test_a_command_line_gives_sacred_every_value_as_it_is():
    odd = {"a": "1e-3", "b": "none", "c": "None", "d": "", "e": "x,y", "f": "psnr", "g": "[1]", "h": 3, "i": [1.5, 2]}
    words = Recipe("odd", "curves", odd).command()[4:]
    assert get_config_updates(words)[0] == odd
    assert "f=psnr" in words


def test_rows_of_videoflextoks_table_1_are_trained_with_equal_operations():
    """EVATok's sequences are longer and their alphabet larger, so their generators take fewer steps."""
    ours = flops.generator_operations(videoflextok_sweeps.shape_of("toy"), 64, training=True) * 600
    grammar = Grammar.of(TOKENIZER_SIZES["toy"])
    shape = GeneratorConfig.of(grammar, "toy")
    for rule, tokens in videoflextok_sweeps.EVATOK_TOKENS.items():
        steps = KNOWN[f"videoflextok-generator-evatok-{rule}-0"].settings["steps"]
        theirs = flops.generator_operations(shape, tokens + grammar.headers, training=True) * steps
        assert theirs == pytest.approx(ours, rel=0.02)


def test_the_adaptive_rows_tokens_are_those_measured_on_games():
    found = records.read(records.REPOSITORY / "results/records/evaluate-20261129T023735-46102934.json")
    recipe = KNOWN["videoflextok-generator-evatok-router-0"]
    assert found.protocol["data"] == recipe.settings["data"]
    assert found.config["checkpoint"] == recipe.settings["tokenizer"]
    assert found.config["assignment"] == f"router:{recipe.settings['router']}"
    assert found.metrics["mean_tokens"].value == videoflextok_sweeps.EVATOK_TOKENS["router"]


def test_no_generator_of_videoflextoks_tables_spends_its_training_in_warm_up():
    usual = configured(stage5_generator.ex)["warmup"]
    found = [r.settings for r in KNOWN.values() if r.name.startswith("videoflextok-generator-")]
    assert {s.get("warmup", usual) / s["steps"] for s in found if s["steps"] == generators.STEPS} == {1 / 6}
    assert all(s.get("warmup", usual) == round(s["steps"] / 6) for s in found)
    assert "warmup" not in KNOWN["videoflextok-generator-time-first-0"].settings


def test_a_tokenizer_of_moving_shapes_is_validated_on_them():
    settings = KNOWN["videoflextok-text-tokenizer"].settings
    assert settings["validation_data"] == settings["data"]


def test_a_sample_without_judged_reconstructions_is_that_of_a_recipe_with_them(shelf):
    recipe = KNOWN["videoflextok-sample-2d-0-k4"]
    without = {**recipe.settings, "judge_reconstructions": False}
    assert made.is_recorded(recipe, [recorded(replace(recipe, settings=without))])


def test_orders_and_systems_are_compared_on_tokenizers_trained_equally_long():
    trained = {KNOWN[generators.GENERATORS[name].recipe].settings["steps"] for name in ("time-first", "grid")}
    assert trained == {videoflextok_recipes.LONG_STEPS}
    rows = {KNOWN[generators.GENERATORS[name].recipe].settings["steps"] for name in ("2d", "flat", "full")}
    assert rows == {videoflextok_recipes.ROW_STEPS}


def test_compute_optimal_trainings_take_twenty_tokens_per_weight():
    for model in videoflextok_sweeps.OPTIMAL:
        training = videoflextok_sweeps.compute_optimal(model)
        weights = flops.trunk_parameters(videoflextok_sweeps.shape_of(model))
        tokens = training.steps * training.batch * 64
        assert tokens / weights == pytest.approx(20, rel=0.01)
        assert training.batch * 64 <= tokens**0.5 < 2 * training.batch * 64
        assert KNOWN[f"videoflextok-generator-grid-0-{training.name}"].settings["steps"] == training.steps
    assert len({training.name for training in videoflextok_sweeps.trainings()}) == len(videoflextok_sweeps.trainings())
