"""Tables of generators on VideoFlexTok: which `sample` records make a row, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evatok.evaluation import protocols
from evatok.reporting import flextok_front, flextok_generation
from evatok.reporting.claims import FAILS, HOLDS, UNKNOWN, UNSURE
from evatok.storage import records
from evatok.storage.records import Metric
from reproductions.videoflextok import figure7, figure9, figure10, figure11, figure12, table2, table3, table4

TOKENIZER = {"form": "flexible", "decoder_mask": "causal", "alignment": True}


@pytest.fixture
def results(tmp_path) -> Path:
    """An empty folder of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def sampled(results) -> Callable[..., records.Record]:
    """Writes a `sample` record: (gfvd, order, kept, tokenizer, facts, **model) -> the record."""
    told = protocols.get("embedded-games-generation")

    def write(
        gfvd: float,
        order: str = "time-first",
        kept: int = 16,
        tokenizer: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        reconstructed: float | None = None,
        **model: Any,
    ) -> records.Record:
        usual = {"size": "toy", "model": "toy", "steps": 600, "batch": 32, "label": "game", "seed": 0}
        usual |= {"order": order, "tokens_per_clip": 64.0, "tokenizer": {**TOKENIZER, **(tokenizer or {})}}
        drawn = {"kept": kept, "guidance": 1.0, "flow_steps": 20, "tokens_per_block": [float(kept)] * 4}
        metrics = {"gfvd": Metric(gfvd, "", 320, "lower", None)}
        metrics["class_consistency"] = Metric(100 - gfvd / 10, "%", 320, "higher", 1.0)
        if reconstructed is not None:
            metrics["class_consistency_reconstructed"] = Metric(reconstructed, "%", 320, "higher", 1.0)
        record = records.new_record(
            kind="sample",
            status="toy",
            protocol={**told.to_record({}, 320, None), "deviations": [], "comparable": True},
            model={"facts": {**usual, **(facts or {})}, "parents": {"clips": "b" * 64}, **drawn, **model},
            metrics=metrics,
            config={},
            environment=dict.fromkeys(records.ENVIRONMENT_KEYS, ""),
        )
        records.write(record, results / "records")
        return record

    return write


def published(script: Any, results: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table and its claims as a script publishes them, by row and by name."""
    assert script.main(["--results", str(results)]) == 0
    frames = (pd.read_csv(results / "tables" / f"videoflextok_{name}{part}.csv") for part in ("", "_signs"))
    table, signs = frames
    return table.set_index(["row", "metric"]), signs.set_index("name")


@pytest.mark.parametrize("script", [table2, table3, table4, figure7, figure9, figure10, figure11])
def test_without_records_nothing_is_claimed_and_the_recipes_are_named(script, results, capsys):
    assert script.main(["--results", str(results)]) == 0
    assert "make videoflextok-generators" in capsys.readouterr().out


def test_rows_are_told_apart_by_order_tokens_and_way_of_sampling(sampled, results):
    few = sampled(100.0, kept=4)
    sampled(1.0, kept=4, guidance=2.0)
    sampled(1.0, kept=4, flow_steps=1)
    sampled(1.0, kept=4, tokenizer={"decoder_mask": "full"})
    sampled(1.0, kept=4, facts={"steps": 601})
    sampled(200.0, "depth-first")
    sampled(210.0)
    table, signs = published(table4, results, "table4")
    assert (table.ours["time-first, few tokens", "gfvd"], table.record["time-first, few tokens", "gfvd"]) == (
        100.0,
        few.id,
    )
    assert table.paper["time-first, few tokens", "gfvd"] == 151.1
    assert set(signs.verdict) == {UNSURE}, "one seed decides nothing"


def test_figure_7_draws_samples_with_what_their_tokenizers_reconstruct_for_each_training(sampled, results):
    longer = {"steps": 10000}
    sampled(300.0, kept=4, reconstructed=85.0, tokenizer=longer)
    sampled(200.0, reconstructed=90.0, tokenizer=longer)
    sampled(500.0)
    sampled(100.0, "depth-first", tokenizer={"form": "grid"})
    published(figure7, results, "figure7")
    drawn = pd.read_csv(results / "figures" / "videoflextok_figure7.csv")
    drawn = drawn.set_index(["metric", "series", "clips", "tokens"]).value.sort_index()
    assert dict(drawn["class_consistency", "registers, 10,000 steps", "samples"]) == {4: 70.0, 16: 80.0}
    assert dict(drawn["class_consistency", "registers, 10,000 steps", "reconstructions"]) == {4: 85.0, 16: 90.0}
    assert dict(drawn["gfvd", "registers, 2,000 steps", "samples"]) == {16: 500.0}
    assert dict(drawn["gfvd", "3D grid, 2,000 steps", "samples"]) == {16: 100.0}
    assert not any(series == "3D grid, 10,000 steps" for _, series, _, _ in drawn.index)
    assert (results / "figures" / "videoflextok_figure7.svg").exists()


OPTIONS = {"temperature": 0.9, "top_k": 100, "top_p": 0.9, "flow_guidance": 15.0}


@pytest.mark.parametrize("option", OPTIONS)
def test_rows_of_one_table_are_drawn_in_one_way(sampled, results, option):
    """A newer sample that is drawn otherwise replaces none, and fills no row beside those of the usual way."""
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "flow_guidance": 1.0}
    few, all_of_them = sampled(100.0, kept=4, **usual), sampled(210.0, **usual)
    sampled(1.0, kept=4, **{**usual, option: OPTIONS[option]})
    sampled(1.0, "depth-first", **{**usual, option: 2 * OPTIONS[option]})
    table, _ = published(table4, results, "table4")
    assert table.record["time-first, few tokens", "gfvd"] == few.id
    assert table.record["time-first, all tokens", "gfvd"] == all_of_them.id
    assert pd.isna(table.record["depth-first, all tokens", "gfvd"])


UNALIGNED = (
    {"kept": 4},
    {},
    {"order": "depth-first"},
    {"guidance": 2.0},
    {"order": "flat", "tokenizer": {"form": "flat"}},
    {"order": "flat", "tokenizer": {"form": "flat"}, "kept": 4},
    {"order": "depth-first", "tokenizer": {"form": "grid"}},
    {"tokenizer": {"decoder_mask": "full"}},
    {"kept": 4, "tokenizer": {"decoder_mask": "full"}},
)
"""Generators of every row."""


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (table2, "table2_generation"),
        (table3, "table3_generation"),
        (table4, "table4"),
        (figure7, "figure7"),
        (figure10, "figure10_generation"),
        (figure11, "figure11"),
    ],
)
def test_generators_on_unaligned_tokenizers_fill_only_rows_that_ask_for_them(sampled, results, script, name):
    for told in UNALIGNED:
        sampled(1.0, **{**told, "tokenizer": {**told.get("tokenizer", {}), "alignment": False}})
    table, signs = published(script, results, name)
    assert table.ours.isna().all()
    assert set(signs.verdict) == {UNKNOWN}
    for told in UNALIGNED:
        sampled(2.0, **told)
    table, _ = published(script, results, name)
    assert (table.ours.xs("gfvd", level="metric") == 2.0).sum() >= 2


@pytest.mark.parametrize("told", [{"stage": 2}, {"steps": 10000}, {"kept": "all"}])
def test_tokenizers_of_one_table_are_trained_equally(sampled, results, told):
    """Records that do not say how stand beside those of the usual training."""
    few = sampled(100.0, kept=4)
    every = sampled(210.0, tokenizer={**flextok_generation.TRAINED, "registers": 16})
    sampled(1.0, "depth-first", tokenizer=told)
    table, _ = published(table4, results, "table4")
    assert table.record["time-first, few tokens", "gfvd"] == few.id
    assert table.record["time-first, all tokens", "gfvd"] == every.id
    assert pd.isna(table.record["depth-first, all tokens", "gfvd"])


@pytest.mark.parametrize("tokenizer", [{"registers": 16}, {}])
def test_a_generator_that_was_taught_a_few_tokens_is_in_no_row(sampled, results, tokenizer):
    whole = [sampled(100.0, kept=kept, tokenizer=tokenizer).id for kept in (4, 16)]
    sampled(1.0, kept=4, facts={"kept": 4, "tokens_per_clip": 16.0}, tokenizer=tokenizer)
    table, _ = published(table4, results, "table4")
    shown = table.record["time-first, few tokens", "gfvd"], table.record["time-first, all tokens", "gfvd"]
    assert list(shown) == whole


def test_all_tokens_are_those_of_the_tokenizer(sampled, results):
    """Not as many as each generator was taught."""
    sampled(100.0, facts={"kept": 16}, tokenizer={"registers": 16})
    sampled(1.0, kept=4, facts={"tokens_per_clip": 16.0}, tokenizer={"registers": 16})
    table, _ = published(table4, results, "table4")
    assert table.ours["time-first, all tokens", "gfvd"] == 100.0


ALIKE = "depth-first, all tokens within 2 % of time-first, all tokens, gfvd"


@pytest.mark.parametrize(
    ("depth", "time", "verdict"),
    [
        ((195.0, 200.0, 205.0), (196.0, 201.0, 206.0), HOLDS),
        ((250.0, 250.2), (251.0, 251.2), HOLDS),  # apart by more than two standard errors, and yet by little
        ((195.0, 200.0, 205.0), (255.0, 260.0, 265.0), FAILS),
        ((200.0, 300.0), (300.0, 400.0), FAILS),  # seeds scatter, but each is 100 apart
        ((200.0, 300.0), (300.0, 200.0), UNSURE),  # equal means of which nothing is known
        ((195.0, 200.0, 205.0), (203.0, 198.0, 206.0), UNSURE),
    ],
)
def test_orders_are_alike_only_if_seed_by_seed_they_are_surely_close(sampled, results, depth, time, verdict):
    for seed, (one, other) in enumerate(zip(depth, time, strict=True)):
        sampled(one, "depth-first", facts={"seed": seed})
        sampled(other, facts={"seed": seed})
        sampled(100.0 + seed, kept=4, facts={"seed": seed})
    table, signs = published(table4, results, "table4")
    assert table.n["depth-first, all tokens", "gfvd"] == len(depth)
    assert signs.verdict[ALIKE] == verdict
    assert signs.verdict["time-first, few tokens better than depth-first, all tokens, gfvd"] in (HOLDS, UNSURE)


def test_the_difference_of_the_orders_is_told_with_its_standard_error_and_margin(sampled, results):
    for seed, apart in enumerate((1.0, 2.0, 3.0)):
        sampled(200.0 + 10 * seed + apart, "depth-first", facts={"seed": seed})
        sampled(200.0 + 10 * seed, facts={"seed": seed})
    _, signs = published(table4, results, "table4")
    told = "first less second +2.0, standard error 0.6, 95 % interval -0.5 to +4.5; margin ± 4.2"
    assert signs.ours[ALIKE] == f"212.0 and 210.0; {told}"
    assert signs.verdict[ALIKE] == UNSURE, "the interval ends outside the margin"


def test_orders_of_other_seeds_are_not_compared_seed_by_seed(sampled, results):
    for seed in range(3):
        sampled(200.0 + seed, "depth-first", facts={"seed": seed})
        sampled(200.0 + seed, facts={"seed": seed + 3})
    _, signs = published(table4, results, "table4")
    assert signs.verdict[ALIKE] == UNSURE


def test_the_grid_is_compared_at_all_its_tokens(sampled, results):
    for seed, shift in enumerate((-1.0, 0.0, 1.0)):
        sampled(300.0 + shift, "depth-first", tokenizer={"form": "grid"}, facts={"seed": seed})
        sampled(150.0 + shift, kept=4, facts={"seed": seed})
    table, signs = published(figure7, results, "figure7")
    assert table.ours["3D grid, all tokens", "gfvd"] == 300.0
    verdicts = dict(zip(signs.index, signs.verdict, strict=True))
    assert [verdict for name, verdict in verdicts.items() if name.startswith("time-first, 4")] == [HOLDS, HOLDS]
    assert [verdict for name, verdict in verdicts.items() if name.startswith("time-first, all")] == [UNKNOWN] * 2


def test_alignment_and_attention_of_the_decoder_are_judged_at_each_length(sampled, results):
    for kept in (1, 4, 16):
        sampled(100.0 + kept, kept=kept)
        sampled(300.0 + kept, kept=kept, tokenizer={"alignment": False})
        sampled(50.0 + kept, kept=kept, tokenizer={"decoder_mask": "full"})
    table, signs = published(figure9, results, "figure9_generation")
    assert (table.ours["unaligned, 4 tokens", "gfvd"], table.ours["aligned, 4 tokens", "gfvd"]) == (304.0, 104.0)
    assert signs.verdict["aligned, 4 tokens better than unaligned, 4 tokens, class_consistency"] == HOLDS
    table, signs = published(figure10, results, "figure10_generation")
    assert table.ours["full, all tokens", "gfvd"] == 66.0
    assert signs.verdict["causal, 1 token better than full, 1 token, class_consistency"] == FAILS
    assert signs.verdict["causal, 4 tokens better than full, 4 tokens, gfvd"] == UNSURE


def test_the_front_has_no_point_that_another_beats_for_less(sampled, results):
    """4 tokens are better than all at every price; 1 token is the cheapest."""
    for kept, steps, gfvd in ((1, 1, 400.0), (4, 1, 200.0), (4, 20, 100.0), (16, 1, 250.0), (16, 20, 150.0)):
        costs = {"generator_flops": 100.0 * kept, "decoder_flops": 10.0 * kept * steps}
        sampled(gfvd, kept=kept, flow_steps=steps, sha256="a" * 64, **costs)
    sampled(1.0, kept=4, guidance=2.0, sha256="a" * 64, generator_flops=1.0, decoder_flops=1.0)
    assert figure12.main(["--results", str(results)]) == 0
    frame = pd.read_csv(results / "figures" / "videoflextok_figure12_generation.csv")
    front = frame[frame["on_front"]]
    assert sorted(zip(front.tokens, front.flow_steps, strict=True)) == [(1, 1), (4, 1), (4, 20)]
    signs = pd.read_csv(results / "tables" / "videoflextok_figure12_generation_signs.csv")
    assert list(signs.verdict) == [UNSURE]
    sampled(50.0, kept=16, flow_steps=40, sha256="a" * 64, generator_flops=1600.0, decoder_flops=6400.0)
    assert figure12.main(["--results", str(results)]) == 0
    signs = pd.read_csv(results / "tables" / "videoflextok_figure12_generation_signs.csv")
    assert "16 x 40" in signs.ours[0], "all tokens are on the front"
    assert list(signs.verdict) == [UNSURE], "a single generator has no interval, so it refutes nothing either"


def test_the_front_is_of_a_generator_on_the_usual_tokenizer(sampled, results):
    costs = {"generator_flops": 400.0, "decoder_flops": 40.0}
    usual = sampled(100.0, kept=4, sha256="a" * 64, **costs)
    for kept in (1, 4, 16):
        sampled(1.0, kept=kept, sha256="b" * 64, tokenizer={"alignment": False}, **costs)
        sampled(1.0, kept=kept, sha256="c" * 64, facts={"kept": 16}, **costs)
    found = flextok_front.points_of(flextok_generation.sampled(results / "records"))
    assert [record.id for record in found] == [usual.id]


@pytest.mark.parametrize("option", OPTIONS)
def test_points_of_the_front_are_drawn_in_one_way(sampled, results, option):
    costs = {"sha256": "a" * 64, "generator_flops": 400.0, "decoder_flops": 40.0}
    kept = [sampled(100.0 + tokens, kept=tokens, **costs).id for tokens in (1, 4, 16)]
    sampled(1.0, kept=4, **{option: OPTIONS[option]}, **costs)
    found = flextok_front.points_of(flextok_generation.sampled(results / "records"))
    assert [record.id for record in found] == kept
