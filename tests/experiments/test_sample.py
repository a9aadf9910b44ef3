"""`evatok.experiments.sample` as a user runs it: what it writes, measures, records, resumes and refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from evatok.data import clips as clip_sets
from evatok.evaluation import EvaluationError, per_clip, protocols
from evatok.evaluation.protocols import Protocol
from evatok.experiments import class_consistency, sample
from evatok.experiments.tracking import ConfigError
from evatok.generation import samples
from evatok.generation.conditions import GenerationError
from evatok.generation.samples import SampleRequest
from evatok.generation.sampling import Sampling
from evatok.generation.video_generator import VideoGenerator
from evatok.metrics.class_consistency import ClassificationError
from evatok.models.classifier import ClassifierConfig, ClipClassifier
from evatok.storage import checkpoints, ranks, records
from evatok.storage.shards import ShardStore
from tests import factories

FRAMES, SIZE, COUNT = 12, 16, 6
LABELS = ["idle", "walk", "idle", "idle", "turn", "idle"]
CLASSES = ["idle", "turn", "walk"]
PREFIX = (8, 4)

pytestmark = pytest.mark.usefixtures("colour_features")


@pytest.fixture
def brief(monkeypatch) -> Protocol:
    """Six clips of a user's own set, for the tiny tokenizer; what the generators here are measured under."""
    base = protocols.get("larp-ucf101-generation")
    brief = dataclasses.replace(
        base, name="brief", data="films", clip_choice="first", clip_seed=0, clips=COUNT, frames=FRAMES, size=SIZE
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "brief", brief)
    return brief


@pytest.fixture
def data(tmp_path, brief, moving_clips) -> str:
    facts = {"name": brief.data, "split": brief.split, "seed": brief.clip_seed, "protocol": brief.hash}
    clips = moving_clips(COUNT, frames=FRAMES, size=SIZE)
    clip_sets.save(tmp_path / "clips", clips, pd.DataFrame({"motion": LABELS}), facts)
    return str(tmp_path / "clips")


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """Checkpoints of untrained networks: the tiny tokenizer, generators of both tasks, a classifier."""
    places = {name: tmp_path / f"{name}.safetensors" for name in ("tokenizer", "class", "frames", "classifier")}
    its = factories.saved_tokenizer(places["tokenizer"], tokenizer)
    told = {"assignment": "uniform", "row": [4, 4, 4], "size": "toy", "steps": 1, "batch": 1, "seed": 0}
    factories.saved_generator(places["class"], its, CLASSES, label="motion", **told)
    factories.saved_generator(places["frames"], its, prefix=PREFIX, label="", **told)
    factories.saved_classifier(places["classifier"], CLASSES, FRAMES, SIZE)
    return tmp_path


@pytest.fixture
def run(folder, data):
    """Runs the experiment: (task, **changes) -> its result and its record."""

    def take(task: str = "class", **changes: Any) -> tuple[dict[str, Any], records.Record]:
        networks = {name: str(folder / f"{name}.safetensors") for name in ("tokenizer", "classifier")}
        places = {name: str(folder / name) for name in ("output", "work", "per_clip")}
        given = {**networks, **places, "generator": str(folder / f"{task}.safetensors"), "router": ""}
        given |= {"records_folder": str(folder / "records"), "protocol": "brief", "data": data, "threads": 1}
        found = sample.ex.run(config_updates={**given, "show": 4, "shard_length": 4, **changes})
        return found.result, records.read(folder / "records" / f"{found.result['record']}.json")

    return take


def test_classes_as_among_the_real_clips_leave_one_comparable_record(run, brief, folder):
    result, record = run()
    assert (record.kind, record.protocol["hash"]) == ("sample", brief.hash)
    assert protocols.comparable(record)
    assert result["samples"] == COUNT
    assert all(record.metrics[name].n == COUNT for name in ("gfvd", "mean_tokens", "seconds_per_clip"))
    assert record.model["sha256"] == checkpoints.load(folder / "class.safetensors", "generator").sha256
    tokens = pd.read_csv(folder / "output" / "tokens.csv", index_col="sample")
    assert tokens["class"].tolist() == LABELS
    blocks = tokens.filter(like="block_")
    assert record.metrics["mean_tokens"].value == pytest.approx(blocks.sum(axis=1).mean())
    assert record.model["tokens_per_block"] == pytest.approx(blocks.mean().tolist())
    for block, levels in enumerate(record.model["levels_per_block"]):
        counted = blocks[f"block_{block}"].value_counts()
        assert levels == {str(level): int(counted.get(level, 0)) for level in (2, 4, 8)}
    named = {"class_consistency", "class_consistency_real", "class_consistency_reconstructed"}
    assert named <= record.metrics.keys()
    assert {f"{name}_balanced" for name in named} <= record.metrics.keys()
    assert np.sum(record.model["consistency"]["generated"]["confusion"]) == COUNT


def test_what_is_written_is_what_was_measured(run, folder, tokenizer):
    run()
    shown = sorted(path.name for path in (folder / "output" / "frames").iterdir())
    assert shown == ["00000-idle", "00001-walk", "00002-idle", "00004-turn"], "every class is among those shown"
    frames = [np.asarray(Image.open(path)) for path in sorted((folder / "output/frames/00001-walk").iterdir())]
    video = VideoGenerator.load(folder / "class.safetensors")
    codes = video.generate([video.class_index("walk")], [samples.sample_seed(0, 1)], Sampling())
    assert np.array_equal(np.stack(frames), video.clips(codes)[0])
    assert Image.open(folder / "output" / "sheet.png").width > 100
    assert (folder / "output" / "clips.mp4").stat().st_size > 500
    run(output="")
    run(moving="clips.webp", output=str(folder / "other"))
    assert Image.open(folder / "other" / "clips.webp").n_frames == FRAMES


@pytest.mark.parametrize("name", ["../../x", "/etc/x"])
def test_a_class_in_a_generators_header_is_no_path(run, folder, monkeypatch, name):
    whole = VideoGenerator.load.__func__

    def hostile(cls, *places, **parts):
        video = whole(cls, *places, **parts)
        return dataclasses.replace(video, classes=(name, *video.classes[1:]))

    monkeypatch.setattr(VideoGenerator, "load", classmethod(hostile))
    asked = folder / "deep" / "asked"
    before = {path for path in folder.rglob("*") if path.name.endswith(("x", ".png"))}
    run(classes=name, classifier="", metrics="", output=str(asked))
    frames = [path for path in folder.rglob("*") if path.suffix == ".png" and path.name != "sheet.png"]
    assert frames
    assert all(path.parent.parent == asked / "frames" for path in frames if path not in before)


def test_named_classes_come_in_turns_and_stand_in_no_table(run, folder):
    _, record = run(classes="walk, turn", metrics="")
    assert pd.read_csv(folder / "output" / "tokens.csv")["class"].tolist() == ["walk", "turn"] * 3
    assert record.protocol["deviations"] == ["classes were chosen"]
    assert not protocols.comparable(record)
    assert "gfvd" not in record.metrics


def test_fewer_samples_are_measured_against_as_many_clips_and_not_comparable(run):
    _, record = run(count=4)
    assert record.metrics["gfvd"].n == 4
    assert "limited to 4 clips" in record.protocol["deviations"]
    assert not protocols.comparable(record)


def test_samples_of_the_same_clips_are_compared_clip_by_clip(run, folder, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", folder.resolve())
    (_, one), (_, other) = run(), run(temperature=0.2)
    assert one.artifacts[per_clip.REFERENCE] == other.artifacts[per_clip.REFERENCE], "the real clips' are one file"
    assert one.artifacts[per_clip.MEASURED] != other.artifacts[per_clip.MEASURED]
    stored = per_clip.read(one, folder.resolve())
    assert len(stored[per_clip.FEATURES]) == len(stored[per_clip.REAL]) == COUNT
    found = per_clip.paired(one, other, "gfvd", folder.resolve())
    assert found.value == pytest.approx(one.metrics["gfvd"].value - other.metrics["gfvd"].value, rel=0.05)
    assert found.low < found.high
    assert not run(per_clip="")[1].artifacts
    assert not run(metrics="")[1].artifacts


def test_frame_prediction_goes_on_from_the_real_clips(run, folder, moving_clips):
    _, record = run("frames")
    assert record.model["task"] == "frames"
    assert "class_consistency" not in record.metrics
    tokens = pd.read_csv(folder / "output" / "tokens.csv")
    assert [set(tokens[f"block_{block}"]) for block in (0, 1)] == [{8}, {4}], "lengths of the given blocks are known"
    names = sorted(path.name for path in (folder / "output" / "frames").iterdir())
    assert names == [f"{number:05d}" for number in range(4)]


def test_a_killed_sampling_goes_on_and_another_way_of_sampling_starts_anew(run, monkeypatch):
    draw, drawn, put, kept = SampleRequest.draw, [], ShardStore.put, []

    def dies(self, made_by, arrays):
        if made_by.get("what") == "samples":
            kept.append((made_by["first"], len(arrays["lengths"])))
            if len(kept) == 2:
                raise KeyboardInterrupt
        put(self, made_by, arrays)

    def counts(self, start, stop, *others):
        drawn.append((start, stop))
        return draw(self, start, stop, *others)

    monkeypatch.setattr(ShardStore, "put", dies)
    monkeypatch.setattr(SampleRequest, "draw", counts)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert drawn == [(0, COUNT)], "both shards were drawn side by side"
    result, record = run()
    (_, first), (start, length) = kept[:2]
    assert result["resumed"] == first
    assert drawn[1:] == [(start, start + length)]
    again, same = run()
    assert (len(drawn), again["resumed"]) == (2, COUNT)
    timeless = [name for name in record.metrics if "seconds" not in name]
    assert {name: same.metrics[name] for name in timeless} == {name: record.metrics[name] for name in timeless}
    assert same.metrics["seconds_per_clip"] == record.metrics["seconds_per_clip"], "sampling's time is kept"
    assert run(temperature=0.5)[0]["resumed"] == 0
    assert run(seed=1)[0]["resumed"] == 0


def test_a_longer_draw_begins_with_the_shorter_one(folder, tokenizer, tmp_path):
    video = VideoGenerator.load(folder / "class.safetensors")
    store = ShardStore(tmp_path / "shards")
    short = samples.draw(SampleRequest(video, 4, [0, 1, 2, 0], None, 3, Sampling()), store, shard_length=4)
    long = samples.draw(SampleRequest(video, 6, [0, 1, 2, 0, 1, 2], None, 3, Sampling()), store, shard_length=4)
    assert (short.resumed, long.resumed) == (0, 4)
    assert np.array_equal(long.tokens[:4], short.tokens)
    video.grammar.build(long.codes)  # raises for anything illegal
    with pytest.raises(EvaluationError, match="6 samples for 4 real clips"):
        samples.Generated(video.clips(long.codes), long, tokenizer, {}).check(4, True)


def test_ranks_share_a_draw_and_each_reads_all_of_it(folder, tmp_path, monkeypatch):
    """Byte for byte what one process draws, the second rank's part drawn while the first waits."""
    video = VideoGenerator.load(folder / "class.safetensors")
    request = SampleRequest(video, 7, [0, 1, 2, 0, 1, 2, 0], None, 3, Sampling())
    whole = samples.draw(request, ShardStore(tmp_path / "one"), shard_length=2)
    store, drawn, number = ShardStore(tmp_path / "two"), [], [0]
    make = SampleRequest.draw

    def noted(self, start, stop, *others):
        drawn.append((number[0], start, stop))
        make(self, start, stop, *others)

    def wait() -> None:
        if number[0] == 0 and len(drawn) == 1:
            number[0] = 1
            samples.draw(request, store, shard_length=2)
            number[0] = 0

    monkeypatch.setattr(SampleRequest, "draw", noted)
    for name, value in {"count": lambda: 2, "rank": lambda: number[0], "wait": wait}.items():
        monkeypatch.setattr(ranks, name, value)
    shared = samples.draw(request, store, shard_length=2)
    assert drawn == [(0, 0, 4), (1, 4, 7)]
    assert shared.resumed == 0
    assert torch.equal(shared.codes.codes, whole.codes.codes)
    assert torch.equal(shared.codes.lengths, whole.codes.lengths)


@pytest.mark.parametrize(
    ("task", "changes", "error", "complaint"),
    [
        ("class", {"classes": "fly"}, GenerationError, "unknown class 'fly'; known ones: idle, turn, walk"),
        ("frames", {"classes": "idle"}, ConfigError, "it has no classes"),
        ("class", {"protocol": ""}, ConfigError, "embedded-generation has 16 frames of 64 pixels"),
        ("class", {"split": "validation"}, ConfigError, "config key split"),
        ("class", {"metrics": "psnr"}, EvaluationError, "does not define 'psnr'"),
        ("class", {"protocol": "later"}, ConfigError, "config key protocol: 'later' is not one of"),
        ("class", {"count": -1}, ConfigError, "config key count"),
    ],
)
def test_what_cannot_be_sampled_is_refused(run, task, changes, error, complaint):
    with pytest.raises(error, match=complaint):
        run(task, **changes)


def test_a_classifier_of_other_classes_is_refused_before_anything_is_drawn(run, folder, monkeypatch):
    seen = ClassifierConfig(2, FRAMES, SIZE, width=8)
    facts = {"classes": ["idle", "walk"], "label": "motion"}
    path = folder / "other.safetensors"
    checkpoints.save(path, ClipClassifier(seen), kind="classifier", config=seen.to_dict(), facts=facts)
    monkeypatch.setattr(samples, "draw", lambda *_, **__: pytest.fail("it was drawn"))
    with pytest.raises(ClassificationError, match="was not trained on class 'turn'"):
        run(classifier=str(path))


def test_reconstructions_are_under_the_assignments_that_taught_the_generator(folder):
    video = VideoGenerator.load(folder / "class.safetensors")
    rule = class_consistency.rule_of({"router": ""}, video)
    assert rule.identity == {"assignment": "uniform", "row": [4]}
    routed = dataclasses.replace(video.checkpoint, facts={**video.checkpoint.facts, "assignment": "router"})
    routed = dataclasses.replace(routed, parents={**routed.parents, "router": "r" * 64})
    video = dataclasses.replace(video, checkpoint=routed)
    assert class_consistency.rule_of({"router": ""}, video) is None
    path = factories.saved_router(folder / "router.safetensors", frames=FRAMES, size=SIZE, patch=(4, 8, 8))
    with pytest.raises(ConfigError, match="trained on assignments of rrrrrrrrrrrr"):
        class_consistency.rule_of({"router": path, "device": "cpu"}, video)
