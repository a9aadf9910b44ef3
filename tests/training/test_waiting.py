"""No step of a training waits for its device but those that write: on a GPU each such step would leave it idle.

A CPU stands for the device. Tensors that would be on a GPU are marked: parameters, what was moved there
(`evatok.storage.transfer`), and all that is computed from these. To ask for the value of one, or for a shape that
depends on values, is to wait; so is a plain copy of anything else to the device.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evatok.data.clips import ClipSet
from evatok.models.latents import PatchPCA
from evatok.storage import transfer
from evatok.tokenizers.videoflextok import FlexNetwork
from evatok.tokenizers.videoflextok.flow_matching import NoiseLevels
from evatok.tokenizers.videoflextok.nested_dropout import NestedDropout
from evatok.training import curve, loop, watch
from evatok.training.batches import Batches
from evatok.training.flextok_alignment import Teacher
from evatok.training.flextok_objective import FlexObjective, FlexTrainee
from tests.factories import TINY_FLEX, TinyEncoder, gratings
from tests.training import ranked

aten = torch.ops.aten
ASKED = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim", "bincount"}
METHODS = {"cpu", "numpy", "tolist", "item", "__array__", "__bool__", "__float__", "__int__", "__index__"}


def marked(values: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) and hasattr(leaf, "on_device") for leaf in tree_leaves(values))


def mark(values: Any) -> Any:
    for leaf in tree_leaves(values):
        if isinstance(leaf, torch.Tensor):
            leaf.on_device = True
    return values


class Waits:
    """What a training waited for, by the place in the package that did."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.allowed = False

    def meet(self, what: str) -> None:
        if not self.allowed:
            frames = [f for f in traceback.extract_stack() if "/evatok/" in f.filename and "/tests/" not in f.filename]
            place = f"{frames[-1].filename.rpartition('/evatok/')[2]}:{frames[-1].lineno}" if frames else "torch"
            self.met.append(f"{what} at {place}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        before, self.allowed = self.allowed, True
        try:
            yield
        finally:
            self.allowed = before


class Calls(TorchFunctionMode):
    """Marks what is computed from marked tensors, and meets methods that wait."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there, name = marked((args, kwargs)), getattr(func, "__name__", "")
        if there and name in METHODS:
            self.waits.meet(name)
        if (
            not there
            and name == "to"
            and any(isinstance(each, str | torch.device) for each in (*args, *kwargs.values()))
        ):
            self.waits.meet("a copy")
        made = func(*args, **kwargs)
        return mark(made) if there else made


class Operations(TorchDispatchMode):
    """The same of what functions do inside: operations whose results, or whose shapes, have to be waited for."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there, name = marked((args, kwargs)), func.overloadpacket.__name__
        if there and (name in ASKED or (name.startswith("index") and self.by_mask(args))):
            self.waits.meet(name)
        made = func(*args, **kwargs)
        return mark(made) if there else made

    @staticmethod
    def by_mask(args: Any) -> bool:
        indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)


@pytest.fixture
def waits(monkeypatch) -> Waits:
    """Trainings within know which tensors lie on a device, and wait freely where they write."""
    found = Waits()

    def copied(tensor, device):
        return tensor if marked(tensor) else mark(tensor.clone())

    monkeypatch.setattr(transfer, "_copied", copied)
    for owner, name in ((curve.Window, "close"), (watch.Watch, "look"), (loop._Trained, "save")):
        whole = getattr(owner, name)

        def writes(*args: Any, whole: Callable[..., Any] = whole) -> Any:
            with found.writing():
                return whole(*args)

        monkeypatch.setattr(owner, name, writes)
    return found


def flex() -> tuple[nn.Module, Callable[..., Any]]:
    """VideoFlexTok's first stage with alignment."""
    torch.manual_seed(6)
    clips = gratings(12, TINY_FLEX.frames, TINY_FLEX.size)
    codec = PatchPCA.fit(clips)
    network = FlexNetwork(replace(TINY_FLEX, codec_sha256=codec.identity()))
    teacher = Teacher(TinyEncoder(), network.config).fit(clips, "cpu")
    objective = FlexObjective(
        Batches(ClipSet(clips, ranked.LABELS, {"name": "gratings"}), ranked.BATCH, seed=5, flip=True, device="cpu"),
        codec,
        NestedDropout(TINY_FLEX.registers, TINY_FLEX.blocks, "powers", "clip"),
        NoiseLevels(),
        teacher,
    )
    return FlexTrainee(network, teacher), objective


TRAININGS = {**ranked.TRAININGS, "flex": flex}
RECIPE = replace(ranked.RECIPE, steps=18, log_every=6, save_every=12)
"""From the tenth step on there is an adversary, from the fifteenth on it plays."""


@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_does_not_wait_for_its_device(name, waits, tmp_path):
    module, objective = TRAININGS[name]()
    mark(list(module.parameters()) + list(module.buffers()))
    with Calls(waits), Operations(waits):
        loop.train(module, objective, RECIPE, tmp_path)
    assert sorted(set(waits.met)) == []


def test_what_waits_is_met(waits):
    """Each in a step of its own, so that no place is passed over."""
    weight = mark(torch.ones(3, requires_grad=True))
    on_cpu = torch.ones(3)
    asked = [
        lambda: (weight * 2).sum().item(),
        lambda: float(weight.detach().max()),
        lambda: bool((weight > 0).all()),
        lambda: weight[weight > 0],
        lambda: weight.detach().masked_fill(weight > 2, 0.0).nonzero(),
        lambda: weight.detach().tolist(),
        lambda: weight.detach().cpu(),
        lambda: on_cpu.to("cpu"),
        lambda: weight.detach().clone().index_put_((weight > 0,), on_cpu),
    ]
    with Calls(waits), Operations(waits):
        for ask in asked:
            before = len(waits.met)
            ask()
            assert len(waits.met) > before
        before = len(waits.met)
        int(on_cpu.sum())
        on_cpu[on_cpu > 0].tolist()
        torch.where(weight > 0, weight, 0.0).sum().backward()
        weight[torch.tensor([0, 2])]
        assert len(waits.met) == before, "what lies on the CPU may be asked"
