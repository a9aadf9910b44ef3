"""What naming an assignment costs beside using it: the router against one tokenizer pass, same clips.

pytest benchmarks/test_router.py --benchmark-only
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from evatok.models.router import ROUTER_SIZES, build_router
from evatok.models.tokenizer import TOKENIZER_SIZES, AdaptiveTokenizer, expand_assignment

CLIPS = 16


def router_pass() -> Callable[[], torch.Tensor]:
    router = build_router(ROUTER_SIZES["toy"]).eval()
    clips = torch.rand(CLIPS, 3, 16, 64, 64)
    return lambda: router(clips)


def tokenizer_pass() -> Callable[[], torch.Tensor]:
    shape = TOKENIZER_SIZES["toy"]
    tokenizer = AdaptiveTokenizer(shape).eval()
    clips, lengths = torch.rand(CLIPS, 3, 16, 64, 64), expand_assignment((16, 16, 16, 16), CLIPS)
    return lambda: tokenizer(clips, lengths).clips


@pytest.mark.benchmark(group="16 clips, toy size", min_rounds=3, max_time=1)
@pytest.mark.parametrize("make", [router_pass, tokenizer_pass], ids=["router", "tokenizer"])
def test_pass(benchmark: BenchmarkFixture, make: Callable[[], Callable[[], torch.Tensor]]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.isfinite(benchmark(make())).all()
