"""The training loop: its schedule, its batches, and a resumed run that is the unbroken one bit for bit."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evatok.training import loop, state
from evatok.training.loop import Recipe, SliceEnded, TrainingError, batch_indices, read_curve, seconds_spent, train

RECIPE = Recipe(
    steps=24, learning_rate=1e-2, final_learning_rate=1e-4, warmup=4, ema=0.9, seed=7, log_every=2, save_every=6
)


class Network(nn.Module):
    """Every kind of state there is: matrices, vectors, running statistics, and noise from the global generator."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def network(width: int = 8) -> Network:
    torch.manual_seed(0)
    return Network(width)


def step_loss(module, step, generator):
    x = torch.randn(16, 4, generator=generator)
    error = (module(x)[:, 0] - x.sum(1)).square().mean()
    decay = 1e-3 * sum(p.square().sum() for p in module.parameters())
    return error + decay, {"error": error, "decay": decay}


def steady(step: int) -> Recipe:
    """A recipe of another length with the same curve up to `step`."""
    return Recipe(steps=step, learning_rate=1e-2, final_learning_rate=1e-2, log_every=1, save_every=1)


def content(folder: Path) -> tuple[bytes, dict]:
    """All that a training leaves, but for the time it took: its curve, byte for byte, and its state."""
    state = torch.load(folder / "state.pt", weights_only=True)
    del state["seconds"], state["sha256"]  # the hash is of the seconds, too
    return (folder / "curve.jsonl").read_bytes(), state


def equal(one, other) -> bool:
    """Nested states, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# Schedule and batches


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine():
    recipe = Recipe(steps=110, learning_rate=1.0, final_learning_rate=0.1, warmup=10)
    assert [recipe.rate(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert recipe.rate(10) == 1.0
    assert recipe.rate(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert recipe.rate(60) == pytest.approx(0.55)
    assert recipe.rate(110) == recipe.rate(500) == pytest.approx(0.1)


def test_wsd_is_constant_for_four_fifths_of_all_steps_and_then_falls_by_one_minus_the_root():
    recipe = Recipe(steps=100, learning_rate=1.0, final_learning_rate=0.2, warmup=10, schedule="wsd")
    assert [recipe.rate(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert {recipe.rate(step) for step in range(10, 81)} == {1.0}
    assert recipe.rate(85) == pytest.approx(0.2 + 0.8 * (1 - math.sqrt(5 / 20)))
    assert recipe.rate(95) == pytest.approx(0.2 + 0.8 * (1 - math.sqrt(15 / 20)))
    assert recipe.rate(100) == recipe.rate(500) == pytest.approx(0.2)


def test_a_wsd_training_resumed_in_its_annealing_is_the_unbroken_one(tmp_path):
    recipe = replace(RECIPE, schedule="wsd")
    train(network(), step_loss, recipe, tmp_path / "broken", stop_at=20)
    train(network(), step_loss, recipe, tmp_path / "broken")
    train(network(), step_loss, recipe, tmp_path / "whole")
    assert equal(content(tmp_path / "broken"), content(tmp_path / "whole"))


@given(
    schedule=st.sampled_from(loop.SCHEDULES),
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    peak=st.floats(1e-5, 1),
    share=st.floats(0, 1),
)
def test_the_rate_rises_to_its_peak_and_never_again(schedule, steps, warmup, peak, share):
    recipe = Recipe(steps=steps, learning_rate=peak, final_learning_rate=share * peak, warmup=warmup, schedule=schedule)
    rates = np.array([recipe.rate(step) for step in range(max(steps, warmup) + 1)])
    assert (np.diff(rates[: max(warmup, 1)]) >= 0).all()
    assert (np.diff(rates[warmup:]) <= 1e-12).all()
    assert rates.max() == pytest.approx(peak)
    assert (rates > 0).all() or share == 0


@given(count=st.integers(1, 60), batch=st.integers(1, 60), epoch=st.integers(0, 5), seed=st.integers(0, 99))
def test_an_epoch_takes_every_clip_at_most_once_and_leaves_less_than_a_batch(count, batch, epoch, seed):
    batch = min(batch, count)
    steps = count // batch
    drawn = np.concatenate([batch_indices(count, batch, epoch * steps + i, seed) for i in range(steps)])
    assert len(np.unique(drawn)) == len(drawn) == steps * batch > count - batch
    assert drawn.min() >= 0
    assert drawn.max() < count


def test_an_even_epoch_takes_every_clip_once_in_an_order_of_its_own():
    epochs = [[batch_indices(24, 8, 3 * epoch + i, seed=0).tolist() for i in range(3)] for epoch in range(2)]
    for epoch in epochs:
        assert sorted(clip for batch in epoch for clip in batch) == list(range(24))
    assert epochs[0] != epochs[1]
    assert epochs[0][0] != batch_indices(24, 8, 0, seed=1).tolist()


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(TrainingError, match="a batch of 9 clips from a set of 8: lower batch"):
        batch_indices(8, 9, 0, 0)


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(0, 10**6))
def test_every_step_has_a_generator_of_its_own(seed, step):
    drawn = [torch.rand(4, generator=loop.step_generator(seed, s)).tolist() for s in (step, step, step + 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_mirroring_takes_about_half_of_the_clips_and_leaves_the_rest():
    clips = np.random.default_rng(0).integers(0, 256, (400, 1, 2, 8, 3), dtype=np.uint8)
    which = loop.half_of(400, torch.Generator().manual_seed(0))
    mirrored = loop.mirror(clips, which)
    assert 150 < which.sum() < 250
    assert np.array_equal(mirrored[which], clips[which][:, :, :, ::-1])
    assert np.array_equal(mirrored[~which], clips[~which])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"save_every": 3}, "save_every 3 must be a multiple of log_every 2"),
        ({"log_every": 0}, "at least 1"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; choose cosine or wsd"),
    ],
)
def test_a_recipe_that_could_not_be_resumed_is_refused_before_the_first_step(change, message):
    with pytest.raises(TrainingError, match=message):
        Recipe(**{"steps": 24, "learning_rate": 1, "final_learning_rate": 1, "log_every": 2, "save_every": 6, **change})


# What a training does


def test_training_learns_and_logs_the_mean_of_every_term(tmp_path):
    logged = []
    recipe = Recipe(steps=200, learning_rate=3e-2, final_learning_rate=1e-3, log_every=25, save_every=100)
    train(network(), step_loss, recipe, tmp_path, on_log=lambda step, line: logged.append({"step": step, **line}))
    curve = read_curve(tmp_path)
    assert curve == logged
    assert [line["step"] for line in curve] == list(range(25, 201, 25))
    assert set(curve[0]) == {"step", "error", "decay", "loss", "gradient_norm"}
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert all(line["loss"] == pytest.approx(line["error"] + line["decay"]) for line in curve)


def test_the_last_line_is_written_even_if_the_steps_end_between_two(tmp_path):
    recipe = Recipe(steps=5, learning_rate=1e-2, final_learning_rate=1e-2, log_every=2, save_every=4)
    train(network(), step_loss, recipe, tmp_path)
    assert [line["step"] for line in read_curve(tmp_path)] == [2, 4, 5]
    assert content(tmp_path)[1]["step"] == 5


def test_the_average_follows_the_weights_and_copies_the_statistics(tmp_path):
    """With the decay's start at (s + 1) / (s + 10), three steps by hand."""
    seen = []

    def watched(module, step, generator):
        seen.append(module.layers[0].bias.detach().clone())
        return step_loss(module, step, generator)

    module = network()
    averaged = train(module, watched, steady(3), tmp_path)
    expected = seen[0]
    for step, new in enumerate([*seen[1:], module.layers[0].bias.detach()]):
        decay = (step + 1) / (step + 10)
        expected = decay * expected + (1 - decay) * new
    assert torch.allclose(averaged.layers[0].bias, expected, atol=1e-6)
    assert torch.equal(averaged.layers[1].running_mean, module.layers[1].running_mean)
    assert not any(p.requires_grad for p in averaged.parameters())
    assert all(p.requires_grad for p in module.parameters())


def test_weight_decay_spares_vectors(tmp_path):
    module = nn.Linear(2, 2)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    recipe = Recipe(steps=3, learning_rate=0.1, final_learning_rate=0.1, weight_decay=0.5, log_every=1, save_every=1)
    train(module, lambda m, s, g: (0.0 * sum(p.sum() for p in m.parameters()), {}), recipe, tmp_path)
    assert torch.allclose(module.weight, torch.tensor(0.95**3))
    assert torch.equal(module.bias, torch.ones(2))


# Resuming


def test_seconds_add_up_over_slices(tmp_path):
    spent = [0.0]
    for stop in (2, 6, None):
        train(network(), step_loss, RECIPE, tmp_path, stop_at=stop)
        spent.append(seconds_spent(tmp_path))
    assert all(earlier < later for earlier, later in itertools.pairwise(spent))


def test_a_sliced_training_is_the_unbroken_one_bit_for_bit(tmp_path):
    whole = train(network(), step_loss, RECIPE, tmp_path / "whole")
    for stop in (2, 6, 8, 22, None):
        torch.manual_seed(stop or 99)  # what another program left in the global generator
        sliced = train(network(), step_loss, RECIPE, tmp_path / "sliced", stop_at=stop)
    assert equal(content(tmp_path / "sliced"), content(tmp_path / "whole"))
    assert equal(sliced.state_dict(), whole.state_dict())


@pytest.mark.parametrize("dies_at", [0, 1, 5, 6, 7, 17, 23])
def test_a_training_that_dies_between_saves_goes_on_from_the_last_one(tmp_path, dies_at):
    train(network(), step_loss, RECIPE, tmp_path / "whole")

    def mortal(module, step, generator):
        if step == dies_at:
            raise KeyboardInterrupt
        return step_loss(module, step, generator)

    with pytest.raises(KeyboardInterrupt):
        train(network(), mortal, RECIPE, tmp_path / "broken")
    train(network(), step_loss, RECIPE, tmp_path / "broken")
    assert equal(content(tmp_path / "broken"), content(tmp_path / "whole"))


def test_a_line_cut_short_by_a_kill_is_written_anew(tmp_path):
    train(network(), step_loss, RECIPE, tmp_path / "whole")
    train(network(), step_loss, RECIPE, tmp_path / "cut", stop_at=12)
    with (tmp_path / "cut" / "curve.jsonl").open("a") as file:
        file.write('{"step": 14, "error": 1.0}\n{"step": 16, "err')
    train(network(), step_loss, RECIPE, tmp_path / "cut")
    assert equal(content(tmp_path / "cut"), content(tmp_path / "whole"))


def test_a_finished_training_returns_its_result_without_a_step(tmp_path):
    whole = train(network(), step_loss, RECIPE, tmp_path)
    before = content(tmp_path)
    again = train(network(), lambda *_: pytest.fail("another step"), RECIPE, tmp_path)
    assert equal(again.state_dict(), whole.state_dict())
    assert equal(content(tmp_path), before)


def test_a_training_out_of_time_is_saved_at_a_line_and_goes_on_to_the_unbroken_one(tmp_path):
    whole = train(network(), step_loss, RECIPE, tmp_path / "whole")
    with pytest.raises(SliceEnded) as ended:
        train(network(), step_loss, RECIPE, tmp_path / "sliced", seconds=0.0)
    assert (ended.value.step, ended.value.steps) == (2, 24)
    rest = train(network(), step_loss, RECIPE, tmp_path / "sliced")
    assert equal(rest.state_dict(), whole.state_dict())
    assert content(tmp_path / "sliced")[0] == content(tmp_path / "whole")[0]


class Learning:
    """A step's loss with a memory: the weights are drawn to the mean of all draws so far."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def __call__(self, module, step, generator):
        self.total += float(torch.rand((), generator=generator))
        self.count += 1
        loss = sum((p - self.total / self.count).square().mean() for p in module.parameters())
        return loss, {"distance": loss}

    def state_dict(self):
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state):
        self.total, self.count = state["total"], state["count"]


def test_what_a_loss_learns_is_resumed_with_the_rest(tmp_path):
    whole = train(network(), Learning(), RECIPE, tmp_path / "whole")
    train(network(), Learning(), RECIPE, tmp_path / "sliced", stop_at=6)
    rest = train(network(), Learning(), RECIPE, tmp_path / "sliced")
    assert equal(rest.state_dict(), whole.state_dict())


def test_a_term_that_comes_late_is_averaged_over_the_steps_that_had_it(tmp_path):
    def late(module, step, generator):
        loss, terms = step_loss(module, step, generator)
        return loss, {**terms, **({"late": torch.tensor(3.0)} if step % 2 else {})}

    train(network(), late, replace(RECIPE, steps=4), tmp_path)
    assert [line["late"] for line in read_curve(tmp_path)] == [3.0, 3.0]


def test_a_slice_ends_on_a_line_of_the_curve(tmp_path):
    with pytest.raises(TrainingError, match="stop_at 5 must be a multiple of log_every 2"):
        train(network(), step_loss, RECIPE, tmp_path, stop_at=5)


VICTIM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests_training import RECIPE, network, step_loss
import torch
from evatok.training.loop import train
torch.set_num_threads(1)

def slow(module, step, generator):
    time.sleep(0.01)
    return step_loss(module, step, generator)

train(network(), slow, RECIPE, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_training_killed_outright_goes_on_bit_for_bit(tmp_path):
    """SIGKILL at whatever moment it is when the curve has grown to four lines."""
    script = tmp_path / "victim.py"
    script.write_text(VICTIM.replace("tests_training", Path(__file__).stem))
    folder = tmp_path / "killed"
    command = [sys.executable, str(script), str(folder), str(Path(__file__).parent)]
    victim = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (folder / "curve.jsonl").exists() or len((folder / "curve.jsonl").read_text().splitlines()) < 4:
        assert victim.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    train(network(), step_loss, RECIPE, folder)
    train(network(), step_loss, RECIPE, tmp_path / "whole")
    assert equal(content(folder), content(tmp_path / "whole"))


# Trainings that cannot go on


def poisoned(step_of_death, spoil):
    """`step_loss`, spoilt from one step on."""

    def loss_and_terms(module, step, generator):
        loss, terms = step_loss(module, step, generator)
        return spoil(loss, terms, module) if step >= step_of_death else (loss, terms)

    return loss_and_terms


def nan_term(loss, terms, module):
    return loss * math.nan, {**terms, "decay": terms["decay"] * math.nan}


def steep(loss, terms, module):
    """A finite value with an infinite slope: the root of nothing."""
    return loss + (0 * module.layers[0].bias.sum()).sqrt(), terms


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan_term, r"step 11: the loss is nan \(terms not finite: \['decay'\]\); last state kept"),
        (steep, "step 11: the gradient's norm is nan at loss .*; last state kept"),
    ],
)
def test_a_loss_or_slope_that_is_not_finite_stops_and_keeps_the_last_state(tmp_path, spoil, message):
    """Step 11 is one that would have been saved."""
    train(network(), step_loss, RECIPE, tmp_path / "good", stop_at=6)
    with pytest.raises(TrainingError, match=message):
        train(network(), poisoned(11, spoil), RECIPE, tmp_path / "bad")
    kept, good = content(tmp_path / "bad")[1], content(tmp_path / "good")[1]
    assert kept["step"] == 6
    assert equal(kept, good)
    train(network(), step_loss, RECIPE, tmp_path / "bad")
    train(network(), step_loss, RECIPE, tmp_path / "good")
    assert equal(content(tmp_path / "bad"), content(tmp_path / "good"))


def test_the_state_of_another_model_is_refused(tmp_path):
    train(network(8), step_loss, RECIPE, tmp_path, stop_at=6)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"state\.pt: cannot resume \(.*Network.*\); delete it to start again"):
        train(network(9), step_loss, RECIPE, tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_corrupt_state_is_refused(tmp_path, share):
    train(network(), step_loss, RECIPE, tmp_path, stop_at=6)
    path = tmp_path / "state.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TrainingError, match=r"state\.pt: cannot resume .*; delete it to start again"):
        train(network(), step_loss, RECIPE, tmp_path)


def test_a_state_with_a_flipped_bit_never_resumes_to_another_one(tmp_path):
    train(network(), step_loss, RECIPE, tmp_path / "whole", stop_at=6)
    whole, wanted = (tmp_path / "whole" / "state.pt").read_bytes(), content(tmp_path / "whole")[1]
    refused, folder = 0, tmp_path / "flipped"
    folder.mkdir()
    for place in np.random.default_rng(0).integers(8 * len(whole), size=150).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (folder / "state.pt").write_bytes(flipped)
        try:
            found = state.read(folder / "state.pt")
        except Exception:
            refused += 1
            with pytest.raises(TrainingError, match=r"state\.pt: cannot resume .*; delete it to start again"):
                train(network(), step_loss, RECIPE, folder, stop_at=6)
        else:
            del found["seconds"]
            assert equal(found, {key: value for key, value in wanted.items() if key != "sha256"})
    assert refused > 20


def test_a_state_from_before_states_had_a_hash_resumes_and_says_so(tmp_path, caplog):
    train(network(), step_loss, RECIPE, tmp_path, stop_at=6)
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    del held["sha256"]
    torch.save(held, tmp_path / "state.pt")
    train(network(), step_loss, RECIPE, tmp_path, stop_at=8)
    assert "cannot be verified" in caplog.text
    assert content(tmp_path)[1]["step"] == 8


def test_a_state_without_its_parts_is_refused(tmp_path):
    torch.save({"module": {}}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="cannot resume"):
        train(network(), step_loss, RECIPE, tmp_path)


def test_the_curve_is_plain_json_lines(tmp_path):
    train(network(), step_loss, RECIPE, tmp_path)
    lines = (tmp_path / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_curve(tmp_path)
