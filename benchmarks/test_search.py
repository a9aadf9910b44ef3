"""Stage 2's search: the exact prefix tree against brute force, same clips, same scores.

    pytest benchmarks/test_search.py --benchmark-only

Read the ratio of the two means within one run; the tree makes 780 block reconstructions a batch where brute force
makes 2,500, but later blocks look back further, so less than 3.2 remains of that.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from evatok.models.tokenizer import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.search import SEARCHES


@pytest.fixture(scope="module")
def tokenizer() -> AdaptiveTokenizer:
    torch.manual_seed(0)
    return AdaptiveTokenizer(TOKENIZER_SIZES["toy"]).eval().requires_grad_(False)


@pytest.mark.benchmark(group="stage 2, 4 clips under 625 candidates", min_rounds=2, max_time=1)
@pytest.mark.parametrize("search", ["tree", "brute"])
def test_search(benchmark: BenchmarkFixture, tokenizer: AdaptiveTokenizer, search: str) -> None:
    shape = tokenizer.config
    clips = torch.rand(4, 3, shape.frames, shape.size, shape.size, generator=torch.Generator().manual_seed(0))
    scores = benchmark(SEARCHES[search], tokenizer, clips)
    assert scores["l1"].shape == (4, len(shape.candidates))
