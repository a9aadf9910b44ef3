"""Every configuration key of every experiment has a domain, and a value outside it stops a run before any work."""

import math
import re
from importlib import import_module
from pathlib import Path

import pytest

from evatok import experiments
from evatok.experiments import keys, tracking
from evatok.experiments.domains import Flag, Many, OneOf, OrNone, Real, Refused, Text, Whole
from tests.factories import configured

EXPERIMENTS = (
    "all_stages",
    "curves",
    "evaluate",
    "pretrain_videomae",
    "probe_encoder",
    "sample",
    "stage1_proxy",
    "stage2_curation",
    "stage3_router",
    "stage4_final",
    "stage5_generator",
    "classes_seen",
    "train_classifier",
    "train_image_encoder",
    "videoflextok_growing",
    "videoflextok_long",
    "videoflextok_long_samples",
    "videoflextok_shown",
    "videoflextok_stage1",
    "videoflextok_stage2",
    "videoflextok_transfer",
    "vtok_align",
    "vtok_decoder",
    "vtok_generation",
    "vtok_pretrained",
    "vtok_stills",
    "vtok_understanding",
)


def experiment(name: str) -> tracking.Experiment:
    return import_module(f"evatok.experiments.{name}").ex


def outside(domain) -> list[object]:
    """Values next to a domain, of its type and of others."""
    if isinstance(domain, OrNone):
        return [value for value in outside(domain.of) if value is not None]
    if isinstance(domain, Whole):
        return [domain.low - 1, domain.high + 1, 1.5, "1", True, None, [1], math.nan]
    if isinstance(domain, Real):
        below = domain.low if domain.ends[0] == "(" else math.nextafter(domain.low, -math.inf)
        above = domain.high if domain.ends[1] == ")" else math.nextafter(domain.high, math.inf)
        return [below, above, -math.inf, math.inf, math.nan, "0.5", False, None, [0.5]]
    if isinstance(domain, Flag):
        return [0, 1, "yes", *([] if domain.none else [None])]
    if isinstance(domain, OneOf | Text):
        return [2024, 1e5, None, (1, 2), True, "a\0b", *([] if domain.empty else [""])]
    assert isinstance(domain, Many)
    return ["abc", 3, None, *([value] for value in outside(domain.of)), *([[]] if domain.least else [])]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_key_is_declared_and_the_defaults_lie_in_their_domains(name):
    for named in ((), *((each,) for each in experiment(name).named_configs)):
        config = configured(experiment(name), *named)
        declared = keys.of(name, config.keys())
        assert declared.keys() == config.keys()
        for key, value in config.items():
            settled = keys.settled(declared[key], key, value)
            assert settled == value
            assert type(settled) is type(value), key


def test_no_experiment_is_left_out():
    sources = {path.stem: path.read_text() for path in Path(experiments.__path__[0]).glob("*.py")}
    found = {name: source for name, source in sources.items() if "\nex = tracking.experiment(" in source}
    assert set(found) == set(EXPERIMENTS)
    for name, source in found.items():
        assert re.search(r"\nex = tracking\.experiment\(\"\w+\", __doc__, \w+\.", source), f"{name} shares no defaults"


def test_no_entry_is_left_of_keys_that_there_are_no_more():
    held = {name: configured(experiment(name)).keys() for name in EXPERIMENTS}
    used = {found for name in EXPERIMENTS for found in (*held[name], *(f"{name}.{key}" for key in held[name]))}
    assert keys.KEYS.keys() <= used
    general = {key for name in EXPERIMENTS for key in held[name] if f"{name}.{key}" not in keys.KEYS}
    assert {key for key in keys.KEYS if "." not in key} <= general


@pytest.mark.parametrize("name", keys.KEYS)
def test_values_outside_a_domain_are_refused_by_key_value_and_what_is_allowed(name):
    for value in outside(keys.KEYS[name].domain):
        with pytest.raises(Refused) as caught:
            keys.settled(keys.KEYS[name], name, value)
        told = str(caught.value)
        assert told.startswith(f"config key {name}: ")
        assert repr(value) in told or value in ("", None) or isinstance(value, list), told


def test_an_experiment_whose_key_is_not_declared_does_not_start():
    ex = tracking.experiment("undeclared", "A key of nobody.", {"novelty": 3})
    ex.main(lambda: pytest.fail("it has begun"))
    with pytest.raises(tracking.ConfigError, match=r"key novelty is not declared.*keys\.py"):
        ex.run()


@pytest.mark.parametrize(
    ("name", "argument", "told"),
    [
        ("stage4_final", "ema=2", "config key ema: 2 is not in [0, 1)"),
        ("stage1_proxy", "clip_norm=-1", "config key clip_norm: -1 is not above 0"),
        ("stage1_proxy", "save_every=30", "config key save_every: 30 is not a multiple of log_every 20"),
        ("stage1_proxy", "batch=2000", "config key batch: 2000 clips per step, but only 1600 clips (train_clips)"),
        ("stage2_curation", "shard_length=0", "config key shard_length: 0 is not an int from 1 to 1000000"),
        ("stage3_router", "router=cnn", "config key router: 'cnn' is not one of vit, pyramid, features"),
        ("stage3_router", "target=sofa", "config key target: 'sofa' is not one of hard, soft, reward"),
        ("stage3_router", "fps=0", "config key fps: 0 is not in (0, 240], or None"),
        ("curves", "weights=[1.0,-1]", "config key weights: -1 is not in [0, 2]"),
        ("evaluate", "work=", "config key work: it is empty; a path is needed"),
        (
            "sample",
            "classes=1,2",
            "config key classes: expected str, got [1, 2] (list); a text that reads as",
        ),
        ("sample", "classes=1,2", """needs quotes of its own: classes='"1,2"'"""),
    ],
)
def test_a_value_outside_its_domain_is_one_line_before_any_clip_is_made(
    name, argument, told, capsys, runs, monkeypatch
):
    monkeypatch.setattr("evatok.data.reels.build", lambda *_, **__: pytest.fail("clips are made"))
    with pytest.raises(SystemExit) as caught:
        tracking.command_line(experiment(name), [name, "with", "toy", argument])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert not runs.exists()


def test_a_word_that_reads_as_a_number_is_taken_as_written_in_quotes_of_its_own(capsys, runs):
    tracking.command_line(experiment("sample"), ["sample", "print_config", "with", 'classes="1,2"', 'data="2024"'])
    told = capsys.readouterr().out
    assert "classes = '1,2'" in told
    assert "data = '2024'" in told


def test_print_config_says_what_a_key_means_what_it_may_be_and_what_the_paper_has(capsys, runs):
    tracking.command_line(experiment("stage4_final"), ["stage4_final", "print_config"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if " = " in line}
    assert "AdamW's; in [0, 10] (not stated; GigaTok's)" in lines["weight_decay"]
    assert "device to compute on; cpu, cuda or cuda:N" in lines["device"]
    assert all(str(key.domain) in lines[name] for name, key in keys.of("stage4_final", lines).items())


def test_a_word_that_was_read_as_a_number_is_quoted_as_it_was_written(monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluate", "with", "work=1e5"])
    with pytest.raises(Refused, match="""quotes of its own: work='"1e5"'"""):
        keys.settled(keys.of("evaluate", ["work"])["work"], "work", 100000.0)
