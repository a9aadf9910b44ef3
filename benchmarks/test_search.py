"""Stage 2's searches on the same clips: brute force, the exact prefix tree, beams, chunks.

    pytest benchmarks/test_search.py --benchmark-only

Compare ratios of means within one run. Three levels instead of the toy's five, so 81 candidates instead of 625: brute
force makes 324 block reconstructions, the tree 120, a beam of width 3 makes 30. `benchmarks/search.py` measures all
625.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.search import CHUNK, operating_points
from benchmarks.setting import Setting, noise, tokenizer_of
from evatok.search.beam import beam_search, search_evaluations
from evatok.search.tree import block_visits, brute_force, prefix_tree
from evatok.tokenizers.evatok import TOKENIZER_SIZES

CLIPS, LEVELS, BLOCKS = 4, (4, 16, 64), 4
SETTING = Setting(tokenizer=replace(TOKENIZER_SIZES["toy"], levels=LEVELS), batch=CLIPS)
POINT = operating_points(SETTING)[0]
SEARCHES: dict[str, tuple[Callable[..., object], int]] = {
    "brute": (brute_force, BLOCKS * len(LEVELS) ** BLOCKS),
    "tree": (prefix_tree, block_visits(len(LEVELS), BLOCKS)),
    "chunks of 2": (
        partial(beam_search, point=POINT, width=1, chunk=CHUNK),
        search_evaluations(len(LEVELS), BLOCKS, width=1, chunk=CHUNK),
    ),
    "beam of 3": (partial(beam_search, point=POINT, width=3), search_evaluations(len(LEVELS), BLOCKS, width=3)),
    "greedy": (partial(beam_search, point=POINT, width=1), search_evaluations(len(LEVELS), BLOCKS, width=1)),
}


@pytest.mark.benchmark(group=f"{CLIPS} clips under {len(LEVELS) ** BLOCKS} candidates", min_rounds=2, max_time=1)
@pytest.mark.parametrize("name", SEARCHES)
def test_search(benchmark: BenchmarkFixture, name: str) -> None:
    search, evaluations = SEARCHES[name]
    tokenizer, clips = tokenizer_of(SETTING), noise(SETTING)
    with torch.no_grad():
        assert benchmark(search, tokenizer, clips)
    benchmark.extra_info["block_evaluations"] = evaluations
