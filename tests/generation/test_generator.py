"""The generator is a Llama; packing and caching change what it costs and not what it computes."""

import dataclasses

import pytest
import torch

from evatok.assignments.candidates import CandidateSet
from evatok.generation.grammar import Grammar, Sequences
from evatok.generation.transformer import GENERATOR_SIZES, Condition, Generator, GeneratorConfig
from evatok.tokenizers.codes import Codes

GRAMMAR = Grammar(CandidateSet((2, 4, 8), 3), 40)
PAPER = Grammar(CandidateSet((32, 64, 128, 256, 512), 4), 8192)


def config(**others):
    small = {"width": 32, "layers": 2, "heads": 4, "classes": 3, "dropout": 0.0, **others}
    return GeneratorConfig.of(GRAMMAR, "toy", **small)


def generator(**others):
    torch.manual_seed(0)
    made = Generator(config(**others)).eval()
    for parameter in made.parameters():
        # Large enough weights that every part of the network is seen in the logits.
        torch.nn.init.normal_(parameter, std=0.2, mean=float(parameter.ndim == 1))
    return made


def sequences(batch=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    lengths = GRAMMAR.candidates.sample(batch, random)
    codes = torch.randint(GRAMMAR.codebook_size, (batch, int(lengths.sum(1).max())), generator=random)
    return GRAMMAR.build(Codes(codes, lengths))


def condition(module, batch=4):
    symbols = torch.arange(batch * module.config.condition).reshape(batch, -1) % GRAMMAR.vocabulary
    classes = torch.arange(batch) % (module.config.classes + 1)
    return Condition(classes, symbols if module.config.condition else None)


def only(row, of):
    count = int(of.counts[row])
    return Sequences(of.symbols[row : row + 1, :count], of.counts[row : row + 1])


both_positions = pytest.mark.parametrize("positions", ["learned", "rope"])


@pytest.mark.parametrize(("size", "parameters"), [("B", 99.2e6), ("L", 327.3e6), ("XL", 633.3e6)])
def test_the_papers_sizes(size, parameters):
    with torch.device("meta"):
        made = Generator(GeneratorConfig.of(PAPER, size, classes=101))
    counted = sum(p.numel() for p in made.parameters())
    print(f"{size}: {counted:,} parameters")
    assert made.config.context == 2053
    assert counted == pytest.approx(parameters, rel=0.002)


@both_positions
@pytest.mark.parametrize("symbols", [0, 5])
def test_packed_logits_are_those_of_each_sequence_alone(positions, symbols):
    module, batch = generator(positions=positions, condition=symbols), sequences()
    asked = condition(module)
    assert len(set(batch.counts.tolist())) > 1
    together = module(batch, asked).split(batch.counts.tolist())
    for row, logits in enumerate(together):
        alone = module(only(row, batch), asked.keep(torch.tensor([row])))
        assert logits.shape == (batch.counts[row], GRAMMAR.vocabulary)
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=0)


def test_linear_layers_see_no_padding():
    module, batch, seen = generator(), sequences(), []
    module.layers[0].down.register_forward_hook(lambda layer, given, out: seen.append(len(out)))
    module(batch, condition(module))
    # The prefix has one place, and the last symbol is never read.
    assert seen == [int(batch.counts.sum())]


def test_no_symbol_is_seen_before_it_is_predicted():
    module, batch = generator(), sequences(1)
    logits = module(batch, condition(module, 1))
    batch.symbols[0, 3] = (batch.symbols[0, 3] + 1) % GRAMMAR.codebook_size
    changed = (module(batch, condition(module, 1)) - logits).abs().amax(1) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * (len(changed) - 4)


@both_positions
@pytest.mark.parametrize("symbols", [0, 5])
def test_cached_steps_have_the_logits_of_the_whole(positions, symbols):
    module, batch = generator(positions=positions, condition=symbols), sequences()
    asked, count = condition(module), int(batch.counts.min())
    whole = module(batch, asked).split(batch.counts.tolist())
    cache = module.cache(len(asked))
    logits = module.logits(module.last_features(module.prefix(asked), cache))
    for place in range(count):
        torch.testing.assert_close(logits, torch.stack([row[place] for row in whole]), atol=1e-4, rtol=0)
        if place < count - 1:
            logits = module.logits(module.decode(batch.symbols[:, place], cache))
    assert cache.lengths == [module.config.prefix + count - 1] * len(asked)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_logits_of_a_part_are_that_part_of_all_logits(rows, dtype):
    module = generator().to(dtype)
    codes = module.config.vocabulary - module.config.levels
    features = torch.randn(rows, module.config.width, dtype=dtype)
    whole = module.head(features)
    for part in (slice(None), slice(0, codes), slice(codes, module.config.vocabulary)):
        torch.testing.assert_close(
            module.logits(features, part), whole[:, part], atol=1e-2 if dtype != torch.float32 else 1e-5, rtol=0
        )


def test_rows_that_leave_the_cache_do_not_disturb_the_others():
    module, batch = generator(), sequences(5)
    asked = condition(module, 5)
    cache, whole = module.cache(5), module.cache(5)
    for held in (cache, whole):
        module.last_features(module.prefix(asked), held)
        module.decode(batch.symbols[:, 0], held)
    stay = [4, 1, 2]
    cache.keep(stay)
    expected = module.decode(batch.symbols[:, 1], whole)[stay]
    torch.testing.assert_close(module.decode(batch.symbols[stay, 1], cache), expected, atol=1e-5, rtol=0)


@both_positions
def test_sequences_that_join_later_stand_at_their_own_places(positions):
    """One writes at the clock as the others do, and sees nothing of what stood in its row or before it."""
    module, batch = generator(positions=positions, condition=2), sequences(5)
    asked = condition(module, 5)
    prefix, whole = module.prefix(asked), module(batch, asked).split(batch.counts.tolist())
    cache = module.cache(5)
    cache.values[:] = 1e3  # what an earlier sequence left
    module.last_features(prefix[:3], cache)
    module.decode(batch.symbols[:3, 0], cache)
    begun = module.logits(module.last_features(prefix[3:], cache))
    torch.testing.assert_close(begun, torch.stack([row[0] for row in whole[3:]]), atol=1e-4, rtol=0)
    assert cache.lengths == [4, 4, 4, 3, 3]
    for place in range(2):
        symbols = torch.cat((batch.symbols[:3, place + 1], batch.symbols[3:, place]))
        expected = torch.stack([row[place + 2] for row in whole[:3]] + [row[place + 1] for row in whole[3:]])
        torch.testing.assert_close(module.logits(module.decode(symbols, cache)), expected, atol=1e-4, rtol=0)
    cache.keep([4, 1])
    expected = torch.stack((whole[4][3], whole[1][4]))
    symbols = torch.stack((batch.symbols[4, 2], batch.symbols[1, 3]))
    torch.testing.assert_close(module.logits(module.decode(symbols, cache)), expected, atol=1e-4, rtol=0)


def test_a_cache_holds_no_nan_before_it_is_written(monkeypatch):
    """Memory that was in use may hold any bits, and columns that a mask hides still enter sums."""
    module, empty = generator(condition=2), torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty", lambda shape, **kind: torch.full(shape, torch.nan, **kind))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *shape: empty(self, *shape).fill_(torch.nan))
    cache = module.cache(1)
    cache.admit(3, 2)
    assert cache.values.isfinite().all()


def test_a_longer_prefix_than_the_clock_has_seen_finds_room_before_it():
    module = generator(condition=2)
    cache, rows = module.cache(3), module.prefix(condition(module, 2))
    module.prefill(rows[:1, :1], cache)
    late = module.last_features(rows[1:], cache)
    assert cache.lengths == [1, 3]
    torch.testing.assert_close(late, module.last_features(rows[1:]), atol=1e-5, rtol=0)
    made = module.decode(torch.tensor([5, 6]), cache)
    expected = [
        module.last_features(torch.tensor([[*row, symbol]]))
        for row, symbol in ((rows[0, :1].tolist(), 5), (rows[1].tolist(), 6))
    ]
    torch.testing.assert_close(made, torch.cat(expected), atol=1e-5, rtol=0)


def test_conditions_are_joined_one_behind_the_other():
    joined = Condition.joined([Condition(torch.tensor([1, 2])), Condition(torch.tensor([0]))])
    assert (joined.classes.tolist(), joined.symbols) == ([1, 2, 0], None)


@pytest.mark.slow
def test_a_rope_generator_is_transformers_llama():
    transformers = pytest.importorskip("transformers")
    module, batch = generator(positions="rope"), sequences(3)
    c = module.config
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=c.vocabulary,
            hidden_size=c.width,
            intermediate_size=c.hidden,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            rms_norm_eps=1e-5,
            max_position_embeddings=c.context,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    ).eval()
    llama.load_state_dict(as_llama(module))
    asked = condition(module, 3)
    for row, logits in enumerate(module(batch, asked).split(batch.counts.tolist())):
        alone = only(row, batch)
        rows = torch.cat((module.prefix(asked)[row : row + 1], alone.symbols[:, :-1]), 1)
        theirs = llama(inputs_embeds=module.embedding(rows)).logits[0]
        torch.testing.assert_close(logits, theirs, atol=1e-4, rtol=0)


def as_llama(module):
    """Our weights under transformers' names."""
    c = module.config
    weights = {
        "model.embed_tokens.weight": module.embedding.weight[: c.vocabulary],
        "model.norm.weight": module.norm.weight,
        "lm_head.weight": module.head.weight,
    }
    for number, layer in enumerate(module.layers):
        q, k, v = layer.query_key_value.weight.chunk(3)
        gate, up = layer.gate_up.weight.chunk(2)
        named = {
            "input_layernorm": layer.attention_norm.weight,
            "post_attention_layernorm": layer.mlp_norm.weight,
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": layer.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.down.weight,
        }
        weights |= {f"model.layers.{number}.{name}.weight": weight for name, weight in named.items()}
    return weights


def test_dropout_changes_training_and_is_off_in_evaluation():
    module, batch = generator(dropout=0.3, class_dropout=0.0), sequences()
    asked = condition(module)
    still = module(batch, asked)
    assert torch.equal(module(batch, asked), still)
    module.train()
    assert not torch.allclose(module(batch, asked), module(batch, asked))


def test_class_dropout_is_the_null_class_and_is_off_in_evaluation():
    module, batch = generator(class_dropout=1.0), sequences()
    asked, null = Condition(torch.zeros(4, dtype=torch.int64)), Condition(torch.full((4,), 3))
    own, nobody = module.loss(batch, asked)[0], module.loss(batch, null)[0]
    assert not torch.isclose(own, nobody)
    some = torch.tensor([True, False, False, True])
    mixed = Condition(torch.tensor([3, 0, 0, 3]))
    assert module.loss(batch, asked, some)[0] == module.loss(batch, mixed)[0]
    module.train()
    assert module.loss(batch, asked)[0] == nobody
    assert module.loss(batch, asked, torch.zeros(4, dtype=torch.bool))[0] == own


def test_without_classes_a_condition_of_symbols_has_the_null_class():
    module, batch = generator(classes=0, condition=5), sequences()
    symbols = torch.arange(20).reshape(4, 5)
    named = Condition(torch.zeros(4, dtype=torch.int64), symbols)
    assert torch.equal(module(batch, Condition(symbols=symbols)), module(batch, named))
    assert not torch.allclose(module(batch, Condition(symbols=symbols)), module(batch, Condition(symbols=symbols + 1)))


def test_the_loss_is_the_mean_over_all_symbols_of_codes_and_lengths():
    module, batch = generator(), sequences()
    loss, terms = module.loss(batch, condition(module))
    total, lengths = int(batch.counts.sum()), 3 * len(batch.counts)
    assert loss.item() == pytest.approx(
        ((total - lengths) * terms["codes"].item() + lengths * terms["lengths"].item()) / total, rel=1e-5
    )
    logits = module(batch, condition(module))
    right = logits.argmax(1) == batch.symbols[batch.valid]
    is_code = batch.symbols[batch.valid] < GRAMMAR.codebook_size
    assert terms["accuracy"].item() == pytest.approx(right[is_code].float().mean().item())


def test_the_loss_has_the_gradients_of_a_plain_cross_entropy():
    module, batch = generator(positions="rope"), sequences(24)
    asked = condition(module, 24)
    assert int(batch.counts.sum()) > 256, "more than one chunk of logits"
    loss, _ = module.loss(batch, asked)
    plain = torch.nn.functional.cross_entropy(module(batch, asked), batch.symbols[batch.valid])
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    weights = list(module.parameters())
    for made, expected in zip(
        torch.autograd.grad(2 * loss, weights), torch.autograd.grad(2 * plain, weights), strict=True
    ):
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert module.loss(batch, asked)[0] == loss


def test_losses_under_autocast_are_float32_and_near_the_exact_ones():
    module, batch = generator(), sequences()
    exact, _ = module.loss(batch, condition(module))
    with torch.autocast("cpu", torch.bfloat16):
        rough, terms = module.loss(batch, condition(module))
    rough.backward()
    assert module.head.weight.grad.isfinite().all()
    assert {rough.dtype, terms["codes"].dtype, terms["lengths"].dtype} == {torch.float32}
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_training_learns_a_sequence_by_heart():
    module, batch = Generator(config(width=64, dropout=0.1)), sequences(2)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(60):
        loss, _ = module.loss(batch, condition(module, 2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _, terms = module.eval().loss(batch, condition(module, 2))
    assert terms["accuracy"] == 1
    assert terms["lengths"] < 0.5


def test_a_configuration_survives_json():
    made = config(positions="rope", condition=7)
    assert GeneratorConfig.from_dict(made.to_dict()) == made
    assert set(GENERATOR_SIZES) == {"toy", "small", "B", "L", "XL", "toy-32", "toy-64", "toy-128", "toy-384"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "sine"}, "unknown positions 'sine'; choose learned or rope"),
        ({"heads": 5}, r"width 32 is not a multiple of 2 \* 5 heads"),
        ({"levels": -1}, "levels must be between 0 and vocabulary - 1 = 42, got -1"),
    ],
)
def test_configurations_that_make_no_generator_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config(), **change)


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match="unknown generator size 'huge'; choose one of toy, small"):
        GeneratorConfig.of(GRAMMAR, "huge")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Condition(torch.tensor([0, 1, 2, 4])), r"classes \[0, 1, 2, 4\]: the generator knows classes 0 to 2"),
        (Condition(torch.zeros(4, dtype=torch.int64), torch.zeros(4, 2)), "has 2 symbols, the generator needs 0"),
    ],
)
def test_conditions_of_another_generator_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        generator()(sequences(), asked)


def test_condition_symbols_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="outside the vocabulary of 43"):
        generator(condition=2)(sequences(1), Condition(symbols=torch.tensor([[1, 43]])))


def test_sequences_too_long_are_refused():
    with pytest.raises(ValueError, match="a sequence has 28 symbols, the generator takes at most 27"):
        generator()(Sequences(torch.zeros(1, 28, dtype=torch.int64), torch.tensor([28])), Condition(torch.tensor([0])))


def test_a_condition_of_nothing_or_of_unlike_lengths_is_refused():
    for arguments in ((None, None), (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))):
        with pytest.raises(ValueError, match="a condition needs classes"):
            Condition(*arguments)
