"""What many tests share: one CPU thread, and a tokenizer small enough to try every assignment."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from evatok.data import clips as clip_sets
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer, TokenizerConfig
from tests.factories import SMALLER, TINY, gratings

# A shell starts what runs in its background with SIGINT ignored; tests send it to themselves and to commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Bit for bit comparisons need a fixed number of threads, and arrays this small gain nothing from more.
torch.set_num_threads(1)

# Examples are timed by nobody: a busy machine is no failure, and the same ones are tried every time.
settings.register_profile("evatok", deadline=None, derandomize=True)
settings.load_profile("evatok")


PIPELINE = "tests/pipeline/"
TALLY: Counter[str] = Counter()
"""What the battery of tests/pipeline has tried, and how it ended."""


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    return TALLY


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of pytest-xdist hands its counts to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(TALLY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With --dist loadfile, the battery of tests/pipeline is for one process: its files share every unbroken run."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log)


def scope_of(nodeid: str) -> str:
    """What a test shares its process with: its file, or the battery."""
    file = nodeid.partition("::")[0]
    return PIPELINE if file.startswith(PIPELINE) else file


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    TALLY.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.section("pipeline")
        for name, count in sorted(TALLY.items()):
            terminalreporter.write_line(f"{count:6} {name}")


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """Where Sacred's runs of this test go."""
    monkeypatch.setenv("EVATOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


class Extractor:
    """Six features a clip, in place of I3D."""

    name, version = "colours", "1"
    weights_sha256 = {"colours": "0" * 64}  # noqa: RUF012

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.cat([clips.mean(dim=(2, 3, 4)), clips.std(dim=(2, 3, 4))], dim=1)


@pytest.fixture
def colour_features(runs, tmp_path, monkeypatch) -> Extractor:
    """Runs, cache and the metrics' network of this test are its own; the network is a light one."""
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("evatok.evaluation.networks._load", lambda name, device: Extractor())
    return Extractor()


@pytest.fixture
def smaller(monkeypatch) -> TokenizerConfig:
    """Makes the toy size a smaller network."""
    monkeypatch.setitem(TOKENIZER_SIZES, "toy", SMALLER)
    return SMALLER


@pytest.fixture
def data(tmp_path, moving_clips) -> str:
    """The folder of a built set of twelve clips."""
    pixels = moving_clips(12)
    clip_sets.save(tmp_path / "clips", pixels, pd.DataFrame({"source": ["made"] * 12}), {"name": "gratings", "seed": 0})
    return str(tmp_path / "clips")


@pytest.fixture
def tiny() -> TokenizerConfig:
    """3 blocks of 2 x 2 patches, 3 levels: 27 candidates."""
    return TINY


@pytest.fixture
def tokenizer() -> AdaptiveTokenizer:
    """An untrained tiny tokenizer, always the same."""
    torch.manual_seed(0)
    return AdaptiveTokenizer(TINY).eval().requires_grad_(False)


@pytest.fixture
def clips() -> torch.Tensor:
    """Four clips of noise for the tiny tokenizer, (4, 3, 12, 16, 16) in [0, 1]."""
    return torch.rand(4, 3, TINY.frames, TINY.size, TINY.size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def moving_clips() -> Callable[..., np.ndarray]:
    """A maker of uint8 clips (N, T, H, W, 3), see `factories.gratings`."""
    return gratings
