"""Whatever lies in a file: its reader reads it, or raises an error that names it, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from battery import damage
from battery.inputs import BYTES, CHECKPOINT, JSON
from battery.small import gratings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evatok.assignments.reward import Scale
from evatok.data import clips as clip_sets
from evatok.data.manifest import read_manifest
from evatok.errors import EvatokError, line_of
from evatok.experiments import config_files, setting
from evatok.generation.grammar import Grammar
from evatok.generation.transformer import Generator, GeneratorConfig
from evatok.generation.video_generator import VideoGenerator
from evatok.metrics.class_consistency import Classifier
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.routing.networks import RouterConfig, build_router
from evatok.routing.trained_router import Router
from evatok.search import candidate_table
from evatok.storage import checkpoints, records
from evatok.storage.environment import REPOSITORY
from evatok.storage.shards import ShardStore
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import curve, loop, state
from evatok.vtok.image_encoder import ImageEncoder, ImageEncoderConfig

PER_KIND = 8
"""Examples for each input that is asked of every kind: a reader is tried faster than a command."""

Reader = Callable[[Path], object]


@pytest.fixture
def tried(inputs, draw_seed):
    """Damages a file in many ways and reads it each time: (path, damages, reader)."""

    def check(path: Path, damages: tuple[damage.Damage, ...], read: Reader) -> None:
        copy, kept = path.with_name("kept"), path.name
        shutil.copy(path, copy)

        def one(drawn) -> None:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            shutil.copy(copy, path)
            done = drawn.choice(damages)(path, drawn)
            refused = None
            try:
                read(path)
            except (EvatokError, OSError) as error:
                refused = error
            if refused:
                assert line_of(refused).isprintable(), done
            if isinstance(refused, OSError):
                assert kept in line_of(refused), done

        # The seed decides which examples: the same ones every time, others with another --draw.
        given_random = given(st.randoms(use_true_random=False))(one)
        given_random._hypothesis_internal_use_seed = draw_seed
        asked = {"max_examples": PER_KIND * inputs, "deadline": None, "database": None}
        settings(**asked, derandomize=False, suppress_health_check=list(HealthCheck))(given_random)()

    return check


def saved(path: Path, module: torch.nn.Module, kind: str, **told) -> Path:
    checkpoints.save(path, module, kind=kind, **{"config": module.config.to_dict(), **told})
    return path


def test_tokenizers(tokenizer, tmp_path, tried):
    tried(saved(tmp_path / "x.safetensors", tokenizer, "tokenizer"), CHECKPOINT, AdaptiveTokenizer.load)


def test_routers(tmp_path, tried):
    shape = RouterConfig(levels=(2, 4, 8), frames=12, size=16, patch=(4, 8, 8), width=16, layers=1, heads=2)
    scale = {"quality_mean": -0.3, "quality_std": 0.02, "length_mean": 14.0, "length_std": 4.3}
    assert Scale(**scale)
    facts = {"point": {"metric": "l1", "w_q": 1.2, "scale": scale}}
    tried(saved(tmp_path / "x.safetensors", build_router(shape), "router", facts=facts), CHECKPOINT, Router.load)


def test_classifiers(tmp_path, tried):
    module = ClipClassifier(ClassifierConfig(2, 8, 16, width=8))
    path = saved(tmp_path / "x.safetensors", module, "classifier", facts={"classes": ["a", "b"], "label": "motion"})
    tried(path, CHECKPOINT, Classifier.load)


def test_image_encoders(tmp_path, tried):
    module = ImageEncoder(ImageEncoderConfig(width=16, channels=8))
    tried(saved(tmp_path / "x.safetensors", module, "image_encoder"), CHECKPOINT, ImageEncoder.load)


def test_generators(tokenizer, tmp_path, tried):
    own = saved(tmp_path / "tokenizer.safetensors", tokenizer, "tokenizer")
    module = Generator(GeneratorConfig.of(Grammar.of(tokenizer.config), "toy", width=16, layers=1, heads=2, classes=2))
    told = {"task": "class", "assignment": "uniform", "classes": ["a", "b"], "prefix": [], "label": "motion"}
    parents = {"tokenizer": checkpoints.load(own).sha256}
    path = saved(tmp_path / "x.safetensors", module, "generator", facts=told, parents=parents)
    tried(path, CHECKPOINT, lambda path: VideoGenerator.load(path, tokenizer=own))


def test_candidate_tables(tmp_path, tried):
    scores = {"l1": np.random.default_rng(0).random((3, 27)).astype(np.float32)}
    data = {"name": "x", "split": "train", "seed": 0, "source": "x", "sha256": "0", "versions": {}}
    origin = {"levels": [2, 4, 8], "blocks": 3, "tokenizer": "0", "data": data}
    path = tmp_path / "x.parquet"
    candidate_table.write(path, candidate_table.CandidateTable(np.arange(3), scores, origin, 1.5))
    tried(path, (*BYTES, damage.of_table, damage.of_table), candidate_table.read)


def test_sets_of_clips(tmp_path, tried):
    labels = pd.DataFrame({"motion": ["walk", "turn"]})
    clip_sets.save(tmp_path / "set", gratings(2, 0), labels, {"name": "gratings", "seed": 0})
    damages = {
        "manifest.json": JSON,
        "clips.npy": (*BYTES, damage.of_array),
        "labels.csv": (*BYTES, damage.of_lines),
    }
    for name, ways in damages.items():
        tried(tmp_path / "set" / name, ways, lambda path: clip_sets.load(path.parent))


@pytest.mark.parametrize("text", ["path,label,start,split\nx.mp4,a,0.0,train\ny.mp4,b,1.5,\n", "x.mp4 a\ny.mp4 b\n"])
def test_manifests(tmp_path, tried, text):
    for name in ("x.mp4", "y.mp4"):
        (tmp_path / name).touch()
    path = tmp_path / "x.csv"
    path.write_text(text)
    tried(path, (*BYTES, damage.of_lines, damage.of_lines), read_manifest)


def test_records(tmp_path, tried):
    source = sorted((REPOSITORY / "results" / "records").glob("evaluate-*.json"))[-1]
    path = tmp_path / "records" / source.name
    path.parent.mkdir()
    shutil.copy(source, path)
    tried(path, JSON, records.read)


def test_claims(tmp_path, tried):
    path = tmp_path / "training.json"
    claim = {"config": {"steps": 3, "data": "x"}, "inputs": "0", "run": "stage1_proxy/3", "changes": []}
    path.write_text(json.dumps(claim))
    tried(path, JSON, setting._read_claim)


def test_curves(tmp_path, tried):
    path = tmp_path / "curve.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')

    def read(path: Path) -> None:
        if path.is_file():
            curve.drop_lines_after(path, 1)
        curve.read_curve(path.parent)

    tried(path, (damage.of_bytes, damage.of_lines), read)


def test_states(tmp_path, tried):
    path = tmp_path / "state.pt"
    module = {"w": torch.ones(3)}
    parts = {"step": 2, "seconds": 1.0, "module": module, "averaged": module, "optimiser": {}, "objective": {}}
    state.write(path, parts)

    def read(path: Path) -> None:
        loop.steps_done(path.parent)
        loop.seconds_spent(path.parent)

    tried(path, (*BYTES, damage.of_state), read)


def test_configurations(tmp_path, tried):
    path = tmp_path / "x.json"
    path.write_text('{"batch": 2, "assignment": "uniform:4", "weights": [0.4, 1.6]}')

    def read(path: Path) -> None:
        with path.open(encoding="utf-8") as file:
            config_files.handler_of(str(path)).load(file)

    tried(path, (damage.of_bytes, damage.of_json), read)


@pytest.mark.filterwarnings("ignore:.*it is computed again")
def test_shards(tmp_path, tried):
    store, made_by = ShardStore(tmp_path), {"pixels": "0"}
    store.put(made_by, {"psnr": np.arange(4.0)})
    (path,) = tmp_path.glob("*.safetensors")

    def read(path: Path) -> None:
        found = store.get(made_by)
        assert found is None or found["psnr"].tolist() == [0, 1, 2, 3]

    tried(path, BYTES, read)
