"""Samples are legal, follow their own seeds, and are drawn from the probabilities that were asked for."""

import time

import numpy as np
import pytest
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.generation import drawing, engines
from evatok.generation.grammar import Grammar, GrammarError
from evatok.generation.kv_cache import KVCache
from evatok.generation.sampling import Sampling, SamplingError, sample
from evatok.generation.transformer import Condition, Generator, GeneratorConfig

GRAMMAR = Grammar(CandidateSet((2, 4, 8), 3), 40)
EVERY_WAY = [
    Sampling(),
    Sampling(guidance=2.5),
    Sampling(guidance=0.0, temperature=0.7),
    Sampling(top_k=5, top_p=0.8, temperature=1.3),
]


def generator(grammar=GRAMMAR, spread=0.3, **others):
    torch.manual_seed(0)
    small = {"width": 32, "layers": 2, "heads": 4, "classes": 3, **others}
    made = Generator(GeneratorConfig.of(grammar, "toy", **small)).eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=spread)
    return made


def classes(batch):
    return Condition(torch.arange(batch) % 3)


def constant(logits, grammar=GRAMMAR):
    """A generator that says the same logits (V,) everywhere."""
    made = generator(grammar)
    made.logits = lambda x, symbols: logits[symbols].repeat(len(x), 1)
    return made


def same(one, other):
    return torch.equal(one.lengths, other.lengths) and torch.equal(one.codes, other.codes)


@pytest.mark.parametrize("how", EVERY_WAY)
def test_cached_samples_are_the_uncached_ones(how):
    module, asked = generator(), classes(6)
    assert same(
        sample(module, GRAMMAR, asked, range(6), how), sample(module, GRAMMAR, asked, range(6), how, cached=False)
    )


@pytest.mark.parametrize("how", EVERY_WAY)
def test_a_batch_of_one_gives_what_a_batch_of_eight_gives(how):
    module, asked, seeds = generator(), classes(8), [5, 9, 2, 77, 0, 1, 2**40, 4]
    together = sample(module, GRAMMAR, asked, seeds, how)
    assert len(set(together.lengths.sum(1).tolist())) > 1
    for row, seed in enumerate(seeds):
        alone = sample(module, GRAMMAR, asked.keep(torch.tensor([row])), [seed], how)
        assert torch.equal(alone.lengths[0], together.lengths[row])
        assert torch.equal(alone.codes[0], together.codes[row, : alone.codes.shape[1]])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("how", EVERY_WAY[:2])
def test_waiting_samples_take_the_room_of_whole_ones_and_nothing_else_changes(how, cached):
    module, asked, seeds = generator(), classes(19), [seed * 7919 for seed in range(19)]
    expected = sample(module, GRAMMAR, asked, seeds, how)
    for batch in (1, 3, 8, 18):
        assert same(sample(module, GRAMMAR, asked, seeds, how, batch=batch, cached=cached), expected)


def test_the_cache_goes_on_from_its_first_columns_when_it_is_full(monkeypatch):
    module, moved, move = generator(), [], KVCache._move
    monkeypatch.setattr(engines, "OPEN_FOR", {})  # one cache for all, as on a GPU
    monkeypatch.setattr(KVCache, "_move", lambda self, first: (moved.append(self.clock), move(self, first)))
    made = sample(module, GRAMMAR, classes(12), range(12), Sampling(), batch=2)
    assert moved, "two at a time take more columns than there are"
    assert set(moved) == {module.cache(1).values.shape[4]}
    assert same(made, sample(module, GRAMMAR, classes(12), range(12), Sampling(), cached=False))


def test_samples_that_wait_follow_conditions_of_symbols():
    module = generator(classes=0, condition=4, positions="rope")
    asked = Condition(symbols=torch.arange(48).reshape(12, 4) % GRAMMAR.vocabulary)
    expected = sample(module, GRAMMAR, asked, range(12), Sampling(), cached=False)
    assert same(sample(module, GRAMMAR, asked, range(12), Sampling(), batch=5), expected)


def test_the_rows_are_full_until_nobody_waits():
    module, rows = generator(), []
    module.layers[0].register_forward_hook(lambda layer, given, out: rows.append(len(out)))
    made = sample(module, GRAMMAR, classes(200), range(200), Sampling(), batch=16)
    total = int(made.lengths.sum()) + 3 * 200
    assert sum(rows) == total, "every symbol is read once"
    assert max(rows) == 16
    waited = [count for count in rows if count < 16]
    assert len(waited) < GRAMMAR.longest, "room is taken at once; at the end the longest goes on alone"


def test_fixed_lengths_move_in_step_batch_by_batch():
    module, rows = generator(), []
    module.layers[0].register_forward_hook(lambda layer, given, out: rows.append(len(out)))
    sample(module, GRAMMAR, classes(12), range(12), Sampling(), batch=6, prefix_lengths=torch.tensor([4, 4, 4]))
    assert rows == [6] * 30


def test_whole_samples_are_handed_over_at_once():
    module, parts = generator(), {}

    def finished(numbers, codes):
        for number, row, lengths in zip(numbers, codes.codes, codes.lengths, strict=True):
            assert number not in parts
            parts[number] = (row[: lengths.sum()], lengths)

    made = sample(module, GRAMMAR, classes(9), range(9), Sampling(), batch=6, finished=finished)
    assert list(parts) != list(range(9)), "not all ended in their order"
    for number in range(9):
        codes, lengths = parts[number]
        assert torch.equal(lengths, made.lengths[number])
        assert torch.equal(codes, made.codes[number, : lengths.sum()])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("columns", [3, 127, 128, 129, 300, 1024])
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(columns, transposed):
    """By stretches as in one piece, at both ends and anywhere between; what has no weight is never drawn."""
    torch.manual_seed(columns)
    weights = torch.rand(2000, columns) * (torch.rand(2000, columns) < 0.2)
    weights[:, columns // 3] += 1e-3
    uniform = torch.linspace(0, 1, 2000, dtype=torch.float64)[:, None].clamp_max(1 - 2**-53)
    drawn, total = drawing.draw(weights.T.contiguous().T if transposed else weights, uniform)
    cumulative = weights.cumsum(1, dtype=torch.float64)
    torch.testing.assert_close(total, cumulative[:, -1:], rtol=1e-6, atol=0)
    assert (weights.gather(1, drawn[:, None]) > 0).all()
    # A target just at an end may fall on either side, as sums are rounded in another order.
    target = uniform * cumulative[:, -1:]
    expected = torch.searchsorted(cumulative, target.minimum(cumulative[:, -1:] * (1 - 1e-15)), right=True)[:, 0]
    near = (cumulative - target).abs().amin(1) < 1e-5
    assert torch.equal(drawn[~near], expected[~near])
    assert (~near).float().mean() > 0.9


@pytest.mark.parametrize(
    "how", [Sampling(), Sampling(temperature=0.5), Sampling(guidance=2.0), Sampling(top_k=3), Sampling(top_p=0.7)]
)
def test_a_large_codebook_is_drawn_from_as_often_as_its_probabilities_say(how):
    grammar = Grammar(CandidateSet((64,), 4), 300)
    logits = torch.full((grammar.vocabulary,), -60.0)
    codes, shares = [3, 127, 128, 299], torch.tensor([0.4, 0.3, 0.2, 0.1])
    logits[codes], logits[300] = shares.log(), 0.0
    module = constant(logits, grammar)
    made = sample(module, grammar, classes(30), range(30), how)
    found = torch.stack([(made.codes == code).float().mean() for code in codes])
    expected = shares ** (1 / how.temperature)  # both rows of a guided sample say the same
    expected[3 if how.top_k else 4 :] = 0
    expected[2 if how.top_p == 0.7 else 4 :] = 0
    expected = expected / expected.sum()
    assert made.codes.numel() == 30 * 256
    torch.testing.assert_close(found, expected, atol=0.025, rtol=0)


def test_other_seeds_give_other_samples():
    module = generator()
    asked = Condition(torch.zeros(20, dtype=torch.int64))
    made = sample(module, GRAMMAR, asked, range(20), Sampling())
    assert (
        len({(*lengths, *codes) for lengths, codes in zip(made.lengths.tolist(), made.codes.tolist(), strict=True)})
        == 20
    )


@pytest.mark.slow
def test_ten_thousand_samples_of_a_random_model_are_legal():
    module, made = generator(spread=1.0), []
    for start in range(0, 10_000, 1000):
        # `sample` parses what it made, which refuses anything illegal.
        how = EVERY_WAY[start // 1000 % len(EVERY_WAY)]
        made.append(sample(module, GRAMMAR, classes(1000), range(start, start + 1000), how))
    lengths = torch.cat([codes.lengths for codes in made])
    assert lengths.shape == (10_000, 3)
    assert set(lengths.flatten().tolist()) == {2, 4, 8}
    assert len(lengths.unique(dim=0)) == 27


def test_frequencies_are_the_probabilities_at_the_temperature_asked_for():
    logits = torch.linspace(-2, 2, GRAMMAR.vocabulary)
    made = sample(constant(logits), GRAMMAR, classes(800), range(800), Sampling(temperature=0.5))
    valid = torch.arange(made.codes.shape[1]) < made.lengths.sum(1, keepdim=True)
    drawn = np.bincount(made.codes[valid], minlength=40)
    expected = (logits[:40].double() * 2).softmax(0).numpy() * drawn.sum()
    # Chi-square with 39 degrees of freedom: 72.1 is exceeded once in a thousand times.
    assert ((drawn - expected) ** 2 / expected).sum() < 72.1
    named = np.array([(made.lengths == level).sum() for level in (2, 4, 8)])
    expected = (logits[40:].double() * 2).softmax(0).numpy() * named.sum()
    assert ((named - expected) ** 2 / expected).sum() < 13.8


def test_top_k_and_top_p_leave_the_most_probable_only():
    logits = torch.log(torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05] + [1e-9] * 35 + [0.9, 0.05, 0.05]))
    for how, left in (
        (Sampling(top_k=2), {0, 1}),
        (Sampling(top_p=0.6), {0, 1}),
        (Sampling(top_p=0.49), {0}),
        (Sampling(top_p=0.86), {0, 1, 2, 3}),
        (Sampling(top_k=3, top_p=0.999), {0, 1, 2}),
        (Sampling(top_k=1), {0}),
    ):
        made = sample(constant(logits), GRAMMAR, classes(60), range(60), how)
        valid = torch.arange(made.codes.shape[1]) < made.lengths.sum(1, keepdim=True)
        assert set(made.codes[valid].tolist()) == left


def test_guidance_goes_beyond_the_class_and_one_is_none():
    module, asked = generator(), classes(6)
    plain = sample(module, GRAMMAR, asked, range(6), Sampling())
    nobody = Condition(torch.full((6,), 3))
    unconditional = sample(module, GRAMMAR, nobody, range(6), Sampling())
    assert same(sample(module, GRAMMAR, asked, range(6), Sampling(guidance=0.0)), unconditional)
    assert same(sample(module, GRAMMAR, asked, range(6), Sampling(guidance=1.0 + 1e-9)), plain)
    assert not same(sample(module, GRAMMAR, asked, range(6), Sampling(guidance=3.0)), plain)


@pytest.mark.parametrize(("guidance", "copies"), [(1.0, 1), (2.0, 2)])
def test_null_rows_run_with_guidance_only_and_whole_samples_leave(guidance, copies):
    module, rows = generator(), []
    module.layers[0].register_forward_hook(lambda layer, given, out: rows.append(len(out)))
    made = sample(module, GRAMMAR, classes(6), range(6), Sampling(guidance=guidance))
    counts = made.lengths.sum(1) + 3
    # Every symbol but a sample's last is read once, and so is the prefix.
    assert sum(rows) == copies * int(counts.sum())
    assert rows == [copies * int((counts > place).sum()) for place in range(int(counts.max()))]


def test_forced_lengths_are_taken_and_the_rest_is_drawn():
    module, forced = generator(), torch.tensor([8, 4])
    made = sample(module, GRAMMAR, classes(40), range(40), Sampling(), prefix_lengths=forced)
    assert made.lengths[:, :2].tolist() == [[8, 4]] * 40
    assert set(made.lengths[:, 2].tolist()) == {2, 4, 8}


def test_condition_symbols_are_followed():
    module = generator(classes=0, condition=4)
    one, other = (Condition(symbols=torch.full((5, 4), symbol)) for symbol in (1, 2))
    first = sample(module, GRAMMAR, one, range(5), Sampling())
    assert same(sample(module, GRAMMAR, one, range(5), Sampling(), cached=False), first)
    assert not same(sample(module, GRAMMAR, other, range(5), Sampling()), first)


def test_tick_counts_every_sample_and_a_training_module_stays_one():
    module, ticks = generator(dropout=0.5), []
    expected = sample(module, GRAMMAR, classes(7), range(7), Sampling())
    made = sample(module.train(), GRAMMAR, classes(7), range(7), Sampling(), tick=ticks.append)
    assert sum(ticks) == 7
    assert module.training
    assert same(made, expected)


@pytest.mark.parametrize("cached", [True, False])
def test_half_precision_weights_sample_too(cached):
    module = generator().bfloat16()
    made = sample(module, GRAMMAR, classes(4), range(4), Sampling(guidance=2.0), cached=cached)
    assert made.codes.dtype == torch.int64


def test_bfloat16_weights_have_nearly_the_logits_of_float32_ones():
    exact, rounded = generator(spread=0.05), generator(spread=0.05).bfloat16()
    logits = []
    for module in (exact, rounded):
        cache = module.cache(3)
        module.prefill(module.prefix(classes(3)), cache)
        steps = [module.logits(module.decode(torch.tensor([7, 8, 9 + place]), cache)) for place in range(12)]
        logits.append(torch.stack(steps).float())
    assert (logits[0] - logits[1]).abs().max() < 0.03 * logits[0].std()


def test_a_cpu_attends_in_float32_whatever_the_weights_are(monkeypatch):
    module, seen, attend = generator().bfloat16(), set(), torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention",
        lambda q, k, v, **options: (seen.add((q.dtype, k.dtype, v.dtype)), attend(q, k, v, **options))[1],
    )
    with torch.autocast("cpu", torch.bfloat16):
        sample(module, GRAMMAR, classes(6), range(6), Sampling(), batch=3)
    assert seen == {(torch.float32,) * 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    module = generator()
    with torch.no_grad():
        module.norm.weight[3] = value
    with pytest.raises(
        SamplingError, match="logits are not finite at or before position 0: the generator's weights may"
    ):
        sample(module, GRAMMAR, classes(2), range(2), Sampling())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guidance": -1.0}, "guidance must be"),
        ({"guidance": float("nan")}, "guidance must be"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0; use top_k=1 for greedy decoding"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0"),
    ],
)
def test_ways_to_sample_that_are_none_are_refused(arguments, message):
    with pytest.raises(SamplingError, match=message):
        Sampling(**arguments)


def test_seeds_grammars_and_guidance_that_do_not_fit_are_refused():
    module = generator()
    with pytest.raises(SamplingError, match="2 seeds for 3 conditions"):
        sample(module, GRAMMAR, classes(3), [1, 2], Sampling())
    with pytest.raises(SamplingError, match=r"made for \(vocabulary, levels, longest\) \(43, 3, 27\), the grammar has"):
        sample(module, Grammar(GRAMMAR.candidates, 41), classes(1), [1], Sampling())
    frames = generator(classes=0, condition=2)
    with pytest.raises(SamplingError, match=r"guidance 2\.0 needs a generator with classes"):
        sample(frames, GRAMMAR, Condition(symbols=torch.zeros(1, 2, dtype=torch.int64)), [1], Sampling(guidance=2.0))
    with pytest.raises(SamplingError, match="batch must be at least 1, got 0"):
        sample(module, GRAMMAR, classes(1), [1], Sampling(), batch=0)
    with pytest.raises(SamplingError, match=r"at most 3 token counts, got \[2, 2, 2, 2\]"):
        sample(module, GRAMMAR, classes(1), [1], Sampling(), prefix_lengths=torch.tensor([2, 2, 2, 2]))
    with pytest.raises(GrammarError, match="3 tokens is not one of the levels"):
        sample(module, GRAMMAR, classes(1), [1], Sampling(), prefix_lengths=torch.tensor([3]))


@pytest.mark.slow
def test_512_tokens_are_sampled_at_least_five_times_faster_with_the_cache():
    grammar = Grammar(CandidateSet((8, 128), 4), 15360)
    module, forced = generator(grammar, width=256, layers=4, heads=4), torch.full((4,), 128)
    started = time.process_time()
    sample(module, grammar, classes(2), [0, 1], Sampling(), prefix_lengths=forced)
    cached = time.process_time() - started
    rows, started = torch.zeros(2, grammar.longest, dtype=torch.int64), time.process_time()
    for length in range(8, grammar.longest, 16):
        module.logits(module.last_features(rows[:, :length]))
    # Every sixteenth of the steps without a cache, and nothing for their draws.
    uncached = 16 * (time.process_time() - started)
    print(f"{cached:.1f} s with the cache, {uncached:.1f} s without: {uncached / cached:.1f} times")
    assert uncached > 5 * cached
