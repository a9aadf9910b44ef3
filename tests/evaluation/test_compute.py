"""Counted operations are those of the passes that really run, and those that can be told on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evatok.evaluation import flops
from evatok.models.attention import Attention
from evatok.routing.networks import RouterConfig, build_router
from evatok.search import tree
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig

ROUTER = RouterConfig(levels=(2, 4, 8), frames=12, size=16, patch=(4, 8, 8), width=16, layers=2, heads=2)


def really(run) -> int:
    """Operations of a pass on the CPU, with values."""
    with flops.counter() as counter:
        run()
    return counter.get_total_flops()


def test_a_linear_map_costs_two_operations_a_weight_and_row():
    with torch.device("meta"):
        layer, x = torch.nn.Linear(7, 5), torch.empty(3, 7)
    assert flops.counted(lambda: layer(x)) == 2 * 3 * 7 * 5
    assert flops.counted(lambda: layer(x).sum(), backward=True) == 2 * 2 * 3 * 7 * 5, "x needs no gradient"


@pytest.mark.parametrize("backward", [False, True])
def test_shapes_count_attention_as_the_processor_runs_it(backward):
    """Whichever kernel does the products, the operations are the same."""
    counts = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            attention, x = Attention(8, 2), torch.ones(1, 6, 8, requires_grad=True)
            mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
        attend = lambda a=attention, x=x, m=mask: a(x, a.keys_values(x), m).sum()  # noqa: E731
        counts.append(flops.counted(attend, backward))
    forward = 2 * 6 * 8 * 32 + 2 * 2 * 6 * 6 * 8
    assert counts == [forward * (3 if backward else 1)] * 2


@pytest.mark.parametrize("row", [[2, 2, 2], [8, 4, 2], [8, 8, 8]])
@pytest.mark.parametrize(("quantiser", "codes"), [("fsq", 240), ("vq", 64)])
def test_a_pass_costs_what_it_really_costs(tiny, row, quantiser, codes):
    config = replace(tiny, quantiser=quantiser, codebook_size=codes)
    tokenizer = AdaptiveTokenizer(config).eval()
    clip, lengths = torch.rand(1, 3, 12, 16, 16), torch.tensor([row])
    with torch.no_grad():
        real = really(lambda: tokenizer(clip, lengths))
    assert flops.tokenizer_operations(config, np.array([sum(row)]), training=False) == real


def test_a_training_step_costs_what_it_really_costs(tiny):
    tokenizer = AdaptiveTokenizer(tiny).train()
    clip, lengths = torch.rand(1, 3, 12, 16, 16), torch.tensor([[8, 4, 2]])
    real = really(lambda: tokenizer(clip, lengths).clips.sum().backward())
    counted = flops.tokenizer_operations(tiny, np.array([14]), training=True)
    assert counted == pytest.approx(real, rel=1e-3)
    assert 2.5 < counted / flops.tokenizer_operations(tiny, np.array([14]), training=False) <= 3


def test_the_mean_over_assignments_is_that_of_each(tiny):
    totals = tiny.candidates.totals
    each = [flops.tokenizer_operations(tiny, np.array([total]), training=False) for total in np.unique(totals)]
    weights = np.unique(totals, return_counts=True)[1]
    mean = flops.tokenizer_operations(tiny, totals, training=False)
    assert mean == pytest.approx(np.average(each, weights=weights))
    assert mean > flops.tokenizer_operations(tiny, np.array([totals.mean()]), training=False), "it is convex"


def test_the_prefix_tree_costs_what_it_really_costs(tiny):
    config = replace(tiny, levels=(2, 8), frames=8)
    tokenizer, clip = AdaptiveTokenizer(config).eval(), torch.rand(1, 3, 8, 16, 16)
    operations = really(lambda: tree.prefix_tree(tokenizer, clip, rows=1))  # more rows would add padding
    brute = really(lambda: tree.brute_force(tokenizer, clip))
    assert flops.scoring_operations(config) == operations < brute
    assert flops.scoring_operations(config, "brute") == pytest.approx(brute)


@pytest.mark.parametrize("kind", ["vit", "pyramid", "features"])
def test_a_router_costs_what_it_really_costs(kind):
    config = replace(ROUTER, kind=kind, size=32)
    module, clip = build_router(config).eval(), torch.rand(1, 3, 12, 32, 32)
    with torch.no_grad():
        assert flops.router_operations(config, training=False) == really(lambda: module(clip))
    assert flops.router_operations(config, training=True) > 2 * flops.router_operations(config, training=False)


def test_a_training_costs_steps_times_batch():
    config = {"steps": 10, "batch": 4}
    shape = TOKENIZER_SIZES["toy"]
    once = flops.tokenizer_operations(shape, shape.candidates.totals, training=True)
    assert flops.flops_of_training("stage1_proxy", shape, config) == pytest.approx(40 * once)
    fixed = flops.tokenizer_operations(shape, np.array([64]), training=True)
    assert flops.flops_of_training("stage4_final", shape, config, np.array([64])) == pytest.approx(40 * fixed)
    routed = flops.router_operations(ROUTER, training=True)
    assert flops.flops_of_training("stage3_router", ROUTER, config) == 40 * routed
    with pytest.raises(flops.ComputeError, match="pass totals"):
        flops.flops_of_training("stage4_final", shape, config)
    with pytest.raises(flops.ComputeError, match="evaluate"):
        flops.flops_of_training("evaluate", shape, config)
    with pytest.raises(flops.ComputeError, match="stage3_router does not train a TokenizerConfig"):
        flops.flops_of_training("stage3_router", shape, config)


@pytest.mark.slow
def test_the_paper_size_costs_about_six_operations_a_weight_and_token():
    """The rule of thumb: twice the weights a token forward, the same twice backward; attention comes on top."""
    shape = TokenizerConfig()
    counted = flops.tokenizer_operations(shape, np.array([1024]), training=True)
    rule = 6 * 140e6 * 1024  # tokens and patches are both 1,024
    assert rule < counted < 1.6 * rule


def test_utilisation_is_a_share_of_what_the_gpu_could_do():
    assert flops.peak_flops("NVIDIA H200") == flops.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert flops.peak_flops("NVIDIA H100 PCIe") < 989e12
    assert flops.peak_flops("AMD EPYC") is None
    assert flops.utilisation(989e12 * 5, 10.0, 989e12) == pytest.approx(0.5)
    with pytest.raises(flops.ComputeError, match="positive"):
        flops.utilisation(1.0, 0.0, 989e12)
