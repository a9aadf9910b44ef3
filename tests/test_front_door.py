"""What a newcomer meets first: the face of the package, its one command, the examples, the pages."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import evatok
from evatok import __main__ as command
from evatok.storage.environment import REPOSITORY
from evatok.vtok import pretrained


def test_every_public_name_is_there_and_importing_the_package_is_cheap():
    for name in evatok.__all__:
        assert getattr(evatok, name) is not None
    assert set(evatok.__all__) <= set(dir(evatok))
    check = "import sys, evatok; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_command_starts_without_what_it_may_never_need():
    heavy = ("torch._dynamo", "sympy", "matplotlib", "scipy.stats", "vector_quantize_pytorch", "transformers")
    check = f"import sys, evatok.experiments.evaluate; sys.exit(str([m for m in {heavy} if m in sys.modules] or 0))"
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "0"


def test_an_unknown_name_is_an_attribute_error_that_says_what_there_is():
    with pytest.raises(AttributeError, match=r"'evatok' has no attribute 'ffvd'; it offers .*\bfvd\b"):
        _ = evatok.ffvd


def test_the_listing_names_every_command_with_a_sentence(capsys):
    assert command.main([]) == 0
    told = capsys.readouterr().out
    for name in ("data", "weights", "runs", "stage1_proxy", "evaluate", "sample"):
        assert re.search(rf"^  {name} +\w.*\.$", told, re.MULTILINE), name


def test_a_near_miss_is_one_line(capsys):
    assert command.main(["stage1_prxy"]) == 2
    assert capsys.readouterr().err == "evatok: no command called 'stage1_prxy'; did you mean stage1_proxy?\n"


def test_a_command_is_its_module_with_its_arguments(monkeypatch):
    ran = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **kwargs: ran.append((name, list(sys.argv))))
    monkeypatch.setattr(sys, "argv", ["evatok"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    for arguments, module in (
        (["weights", "verify"], "evatok.weights"),
        (["evaluate", "with", "limit=3"], "evatok.experiments.evaluate"),
    ):
        command.main(arguments)
        assert ran[-1] == (module, [module, *arguments[1:]])


@pytest.mark.slow
@pytest.mark.parametrize(("script", "told"), [("your_tokenizer.py", "psnr"), ("compare_router.py", "best uniform")])
def test_an_example_runs(script, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, *(["8"] if script == "your_tokenizer.py" else [])])
    runpy.run_path(str(REPOSITORY / "examples" / script), run_name="__main__")
    assert told in capsys.readouterr().out


PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "reproductions").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    named = re.findall(r"`((?:evatok|reproductions|benchmarks|docs|examples|tests)/[\w./-]+\.(?:py|sh|md))`", text)
    for path in [page.parent / link for link in links] + [REPOSITORY / name for name in named]:
        assert path.exists(), f"{page.name} names {path}"


def test_the_pages_name_commands_that_exist():
    modules = {command.module_of(path) for path in command.commands().values()}
    for page in PAGES:
        for name in re.findall(r"python -m (evatok[\w.]+)", page.read_text()):
            assert name in modules, f"{page.name}: python -m {name}"
        for name in re.findall(r"^evatok (\w+)", page.read_text(), re.MULTILINE):
            assert name in command.commands(), f"{page.name}: evatok {name}"


def test_a_router_is_found_in_the_room_of_routers():
    from evatok.routing import Router

    assert Router is evatok.Router


@pytest.mark.parametrize(
    "module",
    [
        *("evatok.alignment.__main__", "evatok.alignment.benchmarks.__main__", "evatok.alignment.vbench.__main__"),
        *("evatok.weights.__main__", "evatok.vtok.pretrained", "evatok.experiments.make", "evatok.experiments.slurm"),
        *("reproductions.__main__", "reproductions.toy"),
        *("reproductions.vtok.generation", "reproductions.vtok.understanding"),
    ],
)
def test_every_command_takes_the_option_that_its_errors_name(module, capsys):
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(module).main(["--help"])
    assert "--debug" in capsys.readouterr().out


def test_debug_leaves_a_script_s_error_as_it_is(tmp_path):
    with pytest.raises(pretrained.PretrainedError):
        pretrained.main([str(tmp_path / "a.gguf"), str(tmp_path), "--debug"])
