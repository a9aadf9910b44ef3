"""The measurements of speed run whole at a tiny size, and what they find ends in a record and a table."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import flexible, generating, networks, ratios, registry, speed, writing
from benchmarks.ratios import Ratio
from benchmarks.registry import Failure, Measured
from benchmarks.setting import Setting, router_lengths
from evatok.generation.grammar import Grammar
from evatok.metrics.i3d import I3DFeatures
from evatok.reporting import speed as speed_table
from evatok.routing.networks import RouterConfig
from evatok.storage import records
from tests.data.noise import NOISE
from tests.factories import TINY_FLEX

NEED_WEIGHTS = {"i3d_bf16", "lpips_bf16"}
"""Measurements of published networks, whose weights may not be here."""
OF_THE_PROXY = {"beam_percentile"}
"""Measurements of the shipped proxy, which a tiny setting does not have."""


@pytest.fixture
def setting(tiny) -> Setting:
    """All of a run's parts, each as small as it can be; frames are large enough for LPIPS's network."""
    shape = dataclasses.replace(tiny, size=32, frames=8, patch=(4, 16, 16))
    return Setting(
        tokenizer=shape,
        router=RouterConfig(levels=(2, 4, 8), frames=8, size=32, patch=(4, 16, 16), width=16, layers=1, heads=2),
        generator={"width": 32, "layers": 1, "heads": 2},
        flexible=TINY_FLEX,
        source=NOISE,
        batch=4,
        network_clips=2,
        samples=2,
        files=12,
        repeats=1,
        at_least=0,
    )


class Colours(torch.nn.Module):
    """In place of the I3D, whose pass takes a second."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(2, 3, 4))


@pytest.fixture
def light_networks(monkeypatch) -> None:
    monkeypatch.setattr(networks, "I3D", Colours)
    monkeypatch.setattr(I3DFeatures, "forward", lambda self, clips: self.network(clips))
    monkeypatch.setattr(
        networks, "load_i3d", lambda device, dtype: lambda clips: clips.to(dtype).float().mean((2, 3, 4))
    )
    monkeypatch.setattr(networks, "random_vgg", lambda device, dtype: lambda a, b: (a - b).abs().mean((1, 2, 3, 4)))
    monkeypatch.setattr(networks, "SAMPLES", 20)
    monkeypatch.setattr(networks, "DIMENSIONS", 8)


def measured_as(*found: Ratio, failures: tuple[Failure, ...] = ()) -> Measured:
    return Measured(list(found), list(failures), {"some": 1.0})


# The registry


SLOW = {"embedded_clips", "many_files", "video_decode"}
"""They start processes."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in registry.MEASUREMENTS
        if name not in registry.OPTIONAL
    ],
)
def test_every_measurement_gives_ratios(name, setting, light_networks):
    found = registry.one(name, setting)
    if isinstance(found, Failure):
        assert name in NEED_WEIGHTS, found.reason
        assert "WeightsError" in found.reason
        return
    assert found or name in OF_THE_PROXY
    assert all(ratio.ratio > 0 for ratio in found if ratio.row != "growth")
    assert all(ratio.note for ratio in found), "a number says what its baseline is"


def test_the_search_has_its_row(setting):
    found = registry.one("tree_search", setting)
    rows = {(ratio.row, ratio.metric) for ratio in found}
    assert {("tree_search", "block_evaluations"), ("tree_search", "wall_seconds")} <= rows


def test_videoflextok_is_measured_on_the_same_clips_tokenizer_and_generator_apart(setting):
    """Two latent frames of 2 x 2 patches: 4 tokens each, or 1."""
    tokenizer = flexible.flexible_of(setting)
    assert (tokenizer.config.frames, tokenizer.config.size) == (setting.tokenizer.frames, setting.tokenizer.size)
    assert flexible.kept_of(tokenizer.config) == (4, 1)
    assert flexible.kept_of(dataclasses.replace(tokenizer.config, registers=256)) == (256, 32)
    rows = {(ratio.row, ratio.metric) for ratio in registry.one("flextok_sampling", setting)}
    per = {f"wall_seconds_per_{unit}_{name}_tokens" for unit in ("clip", "token") for name in ("all", "few")}
    of_decoder = ("flextok_sample_decoder", "wall_seconds_per_clip")
    assert rows == {of_decoder, *(("flextok_generator", metric) for metric in per)}


def test_a_failing_measurement_is_a_row_and_not_the_end(setting, monkeypatch, tmp_path):
    def breaks(setting: Setting) -> list[Ratio]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    works = {"broken": breaks, "sound": lambda setting: [Ratio("sound", "wall_seconds", 2.0, 1.0)]}
    monkeypatch.setattr(registry, "MEASUREMENTS", works)
    measured = registry.measure(setting)
    assert measured.failures == [Failure("broken", "OutOfMemoryError: CUDA out of memory.")]
    record = writing.write(measured, setting, tmp_path, seconds=1.0, complete=True)
    table = pd.read_csv(tmp_path / "tables" / "speed.csv")
    assert table["metric"].tolist() == ["wall_seconds", "failed (OutOfMemoryError: CUDA out of memory.)"]
    assert table["ratio"].isna().tolist() == [False, True]
    assert record.protocol["failed"] == {"broken": "OutOfMemoryError: CUDA out of memory."}


def test_an_unknown_measurement_is_refused(setting):
    with pytest.raises(ValueError, match="no measurement called nothing"):
        registry.measure(setting, ["nothing"])


def test_lengths_are_a_routers(setting):
    toy = Setting.of("cpu", "toy")
    lengths = router_lengths(toy)
    assert lengths.shape == (64, 4)
    assert set(lengths.unique().tolist()) <= set(toy.tokenizer.levels)
    assert lengths.sum(1).float().mean() == pytest.approx(0.704 * 256, rel=0.05), "the paper's saving"
    assert len(lengths.sum(1).unique()) > 8, "clips differ"
    assert torch.equal(lengths, router_lengths(toy))
    assert router_lengths(setting).shape == (4, 2)
    assert set(router_lengths(setting).unique().tolist()) <= {2, 4, 8}


def test_a_generators_lengths_are_drawn_as_a_router_gives_them():
    toy = dataclasses.replace(Setting.of("cpu", "toy"), generator={"width": 32, "layers": 1, "heads": 2}, samples=24)
    grammar = Grammar.of(toy.tokenizer)
    work = generating.sampling_of(toy, generating.generator_of(toy, grammar), grammar, fixed=False)
    assert work().lengths.sum(1).float().mean() == pytest.approx(0.704 * 256, rel=0.35)


def test_a_sampling_reads_all_weights_at_every_step_and_every_position_so_far():
    toy = dataclasses.replace(Setting.of("cpu", "toy"), generator={"width": 32, "layers": 2, "heads": 2})
    module = generating.generator_of(toy, Grammar.of(toy.tokenizer))
    one, two = (generating.bytes_read(module, samples) for samples in (1, 2))
    longest, position = module.config.longest, 2 * 2 * 32 * 4
    assert two - one == sum(position * length for length in range(1, longest + 1))
    read = sum(weight.numel() for weight in module.parameters()) - module.embedding.weight.numel()
    assert 2 * one - two == 4 * read * longest


# Ratios


def test_a_ratio_says_how_many_times_less_it_takes():
    assert Ratio("row", "wall_seconds", 6.0, 2.0).ratio == 3
    for bad in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"row wall_seconds: .* is no ratio"):
            Ratio("row", "wall_seconds", 6.0, bad)


def test_turns_alternate_and_give_medians(monkeypatch):
    clock, turns = [0.0], []
    monkeypatch.setattr(ratios.time, "perf_counter", lambda: clock[0])

    def takes(name: str, seconds: list[float]):
        def work() -> None:
            turns.append(name)
            clock[0] += seconds.pop(0)

        return work

    plain, ours = takes("plain", [9, 4, 50, 6]), takes("ours", [9, 1, 2, 3])
    assert ratios.interleaved(plain, ours, repeats=3, at_least=0) == (6, 2)
    assert turns[-6:] == ["plain", "ours", "ours", "plain", "plain", "ours"]


def test_the_peak_is_what_a_call_holds_at_most():
    def work() -> None:
        torch.ones(1000, 1000).add(1)
        torch.ones(10)

    assert ratios.peak_bytes(work) == pytest.approx(2 * 4e6, rel=0.01)


def test_the_exponent_of_a_power_law():
    assert ratios.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


# Record and table


def test_a_ratio_ends_in_the_record_and_in_the_table(setting, tmp_path):
    record = writing.write(
        measured_as(Ratio("a", "wall_seconds", 3.0, 2.0, "how")), setting, tmp_path, seconds=5.0, complete=True
    )
    assert records.read(next((tmp_path / "records").glob("speed-*.json"))) == record
    assert (record.kind, record.status) == ("speed", "toy")
    assert {key: metric.value for key, metric in record.metrics.items()} == {
        "a/wall_seconds/baseline": 3.0,
        "a/wall_seconds/ours": 2.0,
        "a/wall_seconds/ratio": 1.5,
    }
    assert record.metrics["a/wall_seconds/ours"].unit == "s"
    assert record.protocol["notes"] == {"a/wall_seconds": "how"}
    (line,) = pd.read_csv(tmp_path / "tables" / "speed.csv").to_dict("records")
    device = record.environment["device"]
    assert list(line) == ["row", "metric", "baseline", "ours", "ratio", "device", "record"]
    assert list(line.values()) == ["a", "wall_seconds", 3.0, 2.0, 1.5, device, record.id]


def test_rows_of_a_device_are_replaced_and_those_of_others_stay(setting, tmp_path):
    path = tmp_path / "tables" / "speed.csv"
    first = writing.write(
        measured_as(Ratio("a", "x", 1, 1), Ratio("b", "x", 1, 1)), setting, tmp_path, seconds=1.0, complete=True
    )
    table = pd.read_csv(path)
    pd.concat([table, table.assign(device="another GPU")]).to_csv(path, index=False)
    part = writing.write(measured_as(Ratio("a", "x", 4, 2)), setting, tmp_path, seconds=1.0, complete=False)
    table = pd.read_csv(path)
    mine = table[table["device"] != "another GPU"].set_index("row")
    assert mine["record"].to_dict() == {"b": first.id, "a": part.id}
    assert len(table) == 4
    last = writing.write(measured_as(Ratio("c", "x", 4, 2)), setting, tmp_path, seconds=1.0, complete=True)
    table = pd.read_csv(path)
    assert table[table["device"] != "another GPU"]["row"].tolist() == ["c"]
    assert table["record"].tolist() == [first.id, first.id, last.id]


def test_the_readme_shows_known_rows_in_their_order(setting, tmp_path):
    measured = measured_as(
        Ratio("bf16", "wall_seconds", 3.0, 2.0),
        Ratio("growth", "exponent_of_batch", 1.0, 0.9),
        Ratio("tree_search", "block_evaluations", 2500, 780),
        failures=(Failure("i3d", "no weights"),),
    )
    writing.write(measured, setting, tmp_path, seconds=1.0, complete=True)
    shown = speed_table.worth_showing(tmp_path / "tables")
    assert list(shown.columns) == ["what", "baseline", "ours", "times", "device", "record"]
    assert shown["times"].tolist() == ["3.21", "1.50"]
    assert shown["baseline"].tolist() == ["2,500", "3"]


# The command


def test_the_command_measures_what_it_is_asked_for(setting, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Setting, "of", lambda *arguments, **options: setting)
    assert speed.main(["--only", "encode", "decode", "--results", str(tmp_path)]) == 0
    rows = set(pd.read_csv(tmp_path / "tables" / "speed.csv")["row"])
    assert {"encode", "decode"} <= rows <= {"encode", "decode", "encode_token_dependent"}
    assert "wall_seconds_padded_to_grouped" in capsys.readouterr().out


def test_the_command_complains_in_one_line(tmp_path, capsys):
    assert speed.main(["--only", "nothing", "--results", str(tmp_path)]) == 2
    assert speed.main(["--list"]) == 0
    out, error = capsys.readouterr()
    assert "no measurement called nothing" in error
    assert out.split() == list(registry.MEASUREMENTS)
    assert not list(Path(tmp_path).iterdir())


def test_a_run_whose_measurements_all_fail_says_why_and_records_nothing(setting, tmp_path, capsys, monkeypatch):
    def broken(setting):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Setting, "of", lambda *arguments, **options: setting)
    monkeypatch.setitem(registry.MEASUREMENTS, "encode", broken)
    assert speed.main(["--only", "encode", "--results", str(tmp_path)]) == 2
    assert "nothing was measured (encode: RuntimeError: no such kernel)" in capsys.readouterr().err
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_gpus_command_says_so(capsys):
    from benchmarks import gpu

    assert gpu.main([]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err
