"""A configuration file is data: whatever it holds, reading it runs nothing."""
# ruff: noqa: F841  # Sacred reads the local variables of configuration functions

import json
import os
import pickle
import sys

import pytest

from evatok.experiments import tracking


@pytest.fixture
def made(tmp_path):
    """The folder that hostile input would make."""
    return tmp_path / "made"


@pytest.fixture
def ex(runs):
    """An experiment that says what it was configured with."""
    ex = tracking.experiment("training", "Train nothing.")

    @ex.config
    def config():
        steps = 100
        rate = 0.5
        model = {"width": 64}
        data = "freedoom"

    @tracking.main(ex)
    def main(config, tracker):
        return config

    return ex


@pytest.fixture(params=["", "print_config"])
def refused(request, ex, capsys):
    """Runs the experiment, or prints its configuration, with these arguments; the one line it ends in."""

    def run(*arguments: str) -> str:
        command = [request.param] if request.param else []
        with pytest.raises(SystemExit) as caught:
            tracking.command_line(ex, ["training", *command, "with", *arguments])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def reduced(target) -> dict:
    """What jsonpickle would call os.mkdir for."""
    return {"py/reduce": [{"py/function": f"{os.mkdir.__module__}.mkdir"}, {"py/tuple": [str(target)]}]}


def test_the_hostile_input_of_these_tests_would_work(made, tmp_path):
    import jsonpickle

    jsonpickle.unpickler.Unpickler().restore(reduced(made))
    pickle.loads(pickle.dumps(Malicious(tmp_path / "other")))
    assert made.exists()
    assert (tmp_path / "other").exists()


def test_json_that_jsonpickle_would_run_is_only_data(refused, made, tmp_path):
    for content in ({"steps": reduced(made)}, {"model": reduced(made)}, {"data": [reduced(made)]}, reduced(made)):
        (tmp_path / "x.json").write_text(json.dumps(content))
        assert f"{tmp_path / 'x.json'}: 'py/reduce' cannot be the name" in refused(str(tmp_path / "x.json"))
    assert not made.exists()


def test_a_value_of_the_command_line_is_only_data(refused, made):
    assert "'py/reduce' cannot be the name of a config key" in refused(f"steps={reduced(made)}")
    assert "'py/reduce' cannot be the name of a config key" in refused(f"data=[{reduced(made)}]")
    assert not made.exists()


def test_a_pickle_is_never_opened(refused, made, tmp_path):
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps({"steps": Malicious(made)}))
    assert f"{path}: configuration files are JSON or YAML" in refused(str(path))
    assert not made.exists()


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_yaml_that_names_a_function_is_refused(refused, made, tmp_path, suffix):
    pytest.importorskip("yaml")
    path = tmp_path / f"x.{suffix}"
    path.write_text(f"steps: !!python/object/apply:os.mkdir ['{made}']\n")
    assert f"{path} is not plain YAML" in refused(str(path))
    assert not made.exists()


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '"steps"', "7", '{"rate": NaN}', "[" * 100_000, "\0"])
def test_what_is_no_configuration_is_one_line_that_names_the_file(refused, tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert str(tmp_path / "x.json") in refused(str(tmp_path / "x.json"))


def test_bytes_that_are_no_text_name_the_file(refused, tmp_path):
    (tmp_path / "x.json").write_bytes(b"\x80\x81\xff")
    assert str(tmp_path / "x.json") in refused(str(tmp_path / "x.json"))


def test_another_kind_of_file_is_refused_by_its_name(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").write_text("{}")
    assert "to use the named configuration, move the file of the same name away" in refused("toy")


def test_yaml_without_pyyaml_says_what_to_install(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "x.yaml").write_text("steps: 3\n")
    assert "pip install pyyaml, or give JSON" in refused(str(tmp_path / "x.yaml"))


def test_plain_files_configure_a_run(ex, tmp_path):
    (tmp_path / "x.json").write_text('{"steps": 3, "model": {"width": 8}}')
    config = ex.run(named_configs=(str(tmp_path / "x.json"),)).result
    assert (config["steps"], config["model"]) == (3, {"width": 8})
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_text("steps: 4\ndata: arcade\n")
    config = ex.run(named_configs=(str(tmp_path / "x.yaml"),)).result
    assert (config["steps"], config["data"]) == (4, "arcade")


def test_a_saved_configuration_can_be_given_again(ex, tmp_path):
    path = tmp_path / "saved.json"
    ex.run("save_config", config_updates={"steps": 7, "config_filename": str(path)})
    assert ex.run(named_configs=(str(path),)).result["steps"] == 7
