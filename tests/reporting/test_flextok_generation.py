"""Tables of generators on VideoFlexTok: which `sample` records make a row, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evatok.evaluation import protocols
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
        **model: Any,
    ) -> records.Record:
        usual = {"size": "toy", "model": "toy", "steps": 600, "batch": 32, "label": "game", "seed": 0}
        usual |= {"order": order, "tokens_per_clip": 64.0, "tokenizer": {**TOKENIZER, **(tokenizer or {})}}
        drawn = {"kept": kept, "guidance": 1.0, "flow_steps": 20, "tokens_per_block": [float(kept)] * 4}
        metrics = {"gfvd": Metric(gfvd, "", 320, "lower", None)}
        metrics["class_consistency"] = Metric(100 - gfvd / 10, "%", 320, "higher", 1.0)
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


@pytest.mark.parametrize(("later", "verdict"), [(203.0, HOLDS), (260.0, FAILS)])
def test_orders_are_alike_within_two_standard_errors(sampled, results, later, verdict):
    for seed, shift in enumerate((-5.0, 0.0, 5.0)):
        sampled(200.0 + shift, "depth-first", facts={"seed": seed})
        sampled(later + shift, facts={"seed": seed})
        sampled(100.0 + shift, kept=4, facts={"seed": seed})
    table, signs = published(table4, results, "table4")
    assert table.n["depth-first, all tokens", "gfvd"] == 3
    assert signs.verdict["depth-first, all tokens and time-first, all tokens do not differ, gfvd"] == verdict
    assert list(signs.verdict[:2]) == [HOLDS, HOLDS]


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
    assert signs.verdict["causal, 1 tokens better than full, 1 tokens, class_consistency"] == FAILS
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
    assert list(pd.read_csv(results / "tables" / "videoflextok_figure12_generation_signs.csv").verdict) == [FAILS]
