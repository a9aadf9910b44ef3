"""bfloat16 is used where the device computes in it, and a run says which precision it had."""
# ruff: noqa: F841  # Sacred reads the local variables of configuration functions

import ast
import json
from pathlib import Path

import pytest
import torch

from evatok.experiments import pretrain_videomae, setting, stage1_proxy, stage3_router, stage4_final, tracking
from evatok.models import precision
from evatok.storage.environment import REPOSITORY

COMMENT = "None: on devices with native support"


@pytest.fixture(params=[True, False])
def native(request, monkeypatch) -> bool:
    """Whether the CPU of this test has instructions for bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return request.param


def trains(work: Path) -> tracking.Experiment:
    """An experiment that claims a folder and does nothing there."""
    ex = tracking.experiment("training", "Train nothing.")

    @ex.config
    def config():
        steps = 1
        bf16 = None  # None: on devices with native support
        device = "cpu"

    @tracking.main(ex)
    def main(config, tracker):
        setting.claim_folder(work, config, "clips", tracker)

    return ex


def test_a_cpu_has_bfloat16_by_either_set_of_instructions(monkeypatch):
    for avx512, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx512: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has)
        assert precision.bf16_is_native("cpu") is (avx512 or amx)


def test_a_pytorch_that_cannot_tell_means_no(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert precision.bf16_is_native("cpu") is False


def test_a_gpu_that_emulates_bfloat16_does_not_have_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert precision.bf16_is_native("cuda:0") is False
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert precision.bf16_is_native("cuda:0") is True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.bf16_is_native("cuda") is False


@pytest.mark.parametrize("bf16", [True, False])
def test_autocast_is_bfloat16_where_asked_for(bf16):
    with precision.autocast("cpu", bf16):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if bf16 else torch.float32)


def test_autocast_is_opened_in_one_place():
    """Elsewhere it is only closed: `torch.autocast(kind, enabled=False)`."""
    opened = []
    for path in [*REPOSITORY.glob("evatok/**/*.py"), *REPOSITORY.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.autocast":
                closes = [keyword.arg for keyword in node.keywords if ast.unparse(keyword.value) == "False"]
                opened += [] if "enabled" in closes else [path.relative_to(REPOSITORY).as_posix()]
    assert opened == ["evatok/models/precision.py"]


def test_a_run_records_the_precision_that_none_came_to(native, runs, tmp_path):
    assert trains(tmp_path / "work").run().config["bf16"] is native
    assert json.loads((runs / "training/1/config.json").read_text())["bf16"] is native
    assert json.loads((tmp_path / "work/training.json").read_text())["config"]["bf16"] is native


@pytest.mark.parametrize("asked", [True, False])
def test_an_asked_for_precision_stays(native, runs, tmp_path, asked):
    assert trains(tmp_path / "work").run(config_updates={"bf16": asked}).config["bf16"] is asked


@pytest.mark.parametrize("asked", [1, "yes", [True]])
def test_a_precision_that_is_no_bool_is_refused(runs, tmp_path, asked):
    with pytest.raises(tracking.ConfigError, match="bf16: expected True, False or None"):
        trains(tmp_path / "work").run(config_updates={"bf16": asked})


def test_an_unknown_device_is_named(runs, tmp_path):
    with pytest.raises(tracking.ConfigError, match="device: 'gpu' is not a device"):
        trains(tmp_path / "work").run(config_updates={"device": "gpu"})


def test_a_folder_is_not_gone_on_with_in_another_precision(native, runs, tmp_path):
    trains(tmp_path / "work").run()
    with pytest.raises(tracking.ConfigError, match=f"holds another training \\(bf16 was {native}\\)"):
        trains(tmp_path / "work").run(config_updates={"bf16": not native})
    trains(tmp_path / "work").run()


@pytest.mark.parametrize("ex", [stage1_proxy.ex, stage3_router.ex, stage4_final.ex, pretrain_videomae.ex])
def test_the_configuration_says_what_none_means_and_what_it_comes_to(ex, native, runs, capsys):
    ex.run("print_config")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "bf16 = " in line)
    assert f"bf16 = {native} " in line
    assert COMMENT in line


@pytest.mark.parametrize("size", ["small", "paper"])
def test_the_gpu_sizes_are_bfloat16_whatever_the_machine(size, native, runs):
    for ex in (stage1_proxy.ex, stage3_router.ex, stage4_final.ex, pretrain_videomae.ex):
        assert ex.run("print_config", named_configs=(size,)).config["bf16"] is True
