"""No line of the project reads a file in a way that lets the file run code."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from evatok.storage.environment import REPOSITORY

FOLDERS = ("evatok", "benchmarks", "reproductions")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "shelve", "marshal"}
CALLS = {"eval", "exec", "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}

# Where, what, and why it is no danger.
ALLOWED = {
    ("evatok/weights/unpickle.py", "import pickle"): "its unpickler knows three globals of numpy",
    ("evatok/weights/__init__.py", "torch.hub.get_dir"): "a folder's name",
    ("evatok/weights/__init__.py", "torch.hub.download_url_to_file"): "bytes to a file, their hash compared",
}


def unsafe(source: str) -> Iterator[str]:
    """What in a module's source may run what a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if _root(name.name) in MODULES)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{name.name}" for name in node.names}
            yield from [f"import {node.module}"] if _root(node.module) in MODULES else []
            yield from (f"import {name}" for name in names if name.startswith(("torch.hub", "torch.load", "torch.jit")))
        if isinstance(node, ast.Attribute):
            told = ast.unparse(node)
            yield from [told] if told.startswith("torch.hub.") else []
        if isinstance(node, ast.Call):
            yield from _call(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})


def _root(module: str) -> str:
    return module.partition(".")[0]


def _call(name: str, keywords: dict[str | None, str]) -> Iterator[str]:
    if name in CALLS or name.endswith("load_state_dict_from_url"):
        yield name
    if name in ("torch.load", "torch.jit.load") and keywords.get("weights_only") != "True":
        yield name
    if keywords.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if keywords.get("trust_remote_code", "False") != "False":
        yield f"{name} with trust_remote_code"


def test_no_module_reads_what_could_run():
    found = {
        (path.relative_to(REPOSITORY).as_posix(), what)
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*.py")
        for what in unsafe(path.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED.keys() == set(), "read plain data instead: safetensors, JSON, torch.load(weights_only=True)"
    assert ALLOWED.keys() - found == set(), "no longer there: take it off the list"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import jsonpickle.handlers",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=asked)",
        "torch.hub.load('a/b', 'net')",
        "from torch.hub import load_state_dict_from_url",
        "from torch import load, hub",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=asked)",
        "pd.read_pickle(path)",
        "yaml.load(file, Loader=yaml.Loader)",
        "eval(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_scan_sees(source):
    assert list(unsafe(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True, map_location='cpu')",
        "np.load(path, mmap_mode='r')",
        "np.load(path, allow_pickle=False)",
        "json.load(file)",
        "yaml.safe_load(file)",
        "network.eval()",
        "from evatok.weights import unpickle",
    ],
)
def test_the_scan_passes(source):
    assert not list(unsafe(source))
