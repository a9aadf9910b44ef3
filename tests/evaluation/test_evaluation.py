"""Evaluations mean what they say: exact on known systems, whatever the batches, and never on the wrong clips."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from evatok import evaluation
from evatok.assignments.rules import Fixed, Random
from evatok.data import clips as clip_sets
from evatok.data.clips import ClipSet, to_network
from evatok.evaluation import (
    Adaptive,
    EvaluationError,
    FolderClips,
    Foreign,
    Identity,
    Output,
    Reconstructed,
    evaluate,
    protocols,
)
from evatok.evaluation.protocols import Protocol
from evatok.metrics import pixels
from evatok.metrics.features import clip_features
from evatok.storage import shards

FRAMES, SIZE, COUNT = 12, 16, 7
MOTION = ("motion_ratio", "motion_correlation")


class Extractor:
    """Six features a clip: mean and spread of each colour. Counts the clips it has seen."""

    name, version = "colours", "1"

    def __init__(self, sha256: str = "0" * 64) -> None:
        self.weights_sha256 = {"colours": sha256}
        self.seen = 0

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        self.seen += len(clips)
        return torch.cat([clips.mean(dim=(2, 3, 4)), clips.std(dim=(2, 3, 4))], dim=1)


class Halved(evaluation.System):
    """Darkens; remembers which clips it was asked for, and fails from clip `mortal_at` on."""

    identity = {"name": "halved"}  # noqa: RUF012

    def __init__(self, mortal_at: int = 10**9) -> None:
        self.asked: list[int] = []
        self.mortal_at = mortal_at

    def __call__(self, clips: torch.Tensor, indices: np.ndarray) -> Output:
        if indices[-1] >= self.mortal_at:
            raise KeyboardInterrupt
        self.asked += indices.tolist()
        return Output(clips / 2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small() -> Protocol:
    base = protocols.get("embedded-reconstruction")
    return dataclasses.replace(base, name="small", clips=COUNT, frames=FRAMES, size=SIZE)


@pytest.fixture
def real(tmp_path, moving_clips, small) -> ClipSet:
    facts = {"name": "freedoom", "split": "validation", "seed": 0, "recipe": {"version": small.data_version}}
    labels = pd.DataFrame({"source": ["made"] * COUNT})
    return clip_sets.save(tmp_path / "real", moving_clips(COUNT, frames=FRAMES, size=SIZE), labels, facts)


@pytest.fixture
def networks() -> dict[str, Any]:
    return {"i3d": Extractor()}


# Values


def test_the_identity_is_perfect_and_its_psnr_at_the_ceiling(real, small, networks):
    found = evaluate(Identity(), real, small, networks=networks)
    assert found.metrics["l1"].value == found.metrics["mse"].value == 0
    assert found.metrics["ssim"].value == pytest.approx(1)
    assert found.metrics["rfvd"].value == pytest.approx(0, abs=1e-6)
    assert found.metrics["rfvd"].n == COUNT
    assert found.metrics["psnr"].value == 100
    assert found.model["psnr_ceiling"] == {"dB": 100, "clips": COUNT}
    assert found.model["infinite"] == {}
    assert found.protocol["comparable"] is True
    assert found.protocol["hash"] == small.hash


def test_one_perfect_clip_leaves_the_psnr_of_the_set(real, small):
    """A black clip that fades in is easily reproduced exactly; it counts as 100 dB, and is told."""
    pixels = np.array(real.clips)
    pixels[3] = 0
    found = evaluate(lambda clips: clips / 2, pixels, small, metrics=["psnr"], batch=2)
    others = np.delete(found.per_clip["psnr"], 3)
    assert found.per_clip["psnr"][3] == 100
    assert (others < 30).all()
    assert found.metrics["psnr"].value == pytest.approx((others.sum() + 100) / COUNT)
    assert found.metrics["psnr"].spread is not None
    assert found.model["psnr_ceiling"] == {"dB": 100, "clips": 1}
    assert "psnr_ceiling" not in evaluate(lambda clips: clips / 2, pixels, small, metrics=["l1"]).model


def test_a_tokenizer_is_measured_as_by_hand(real, small, networks, tokenizer):
    system = Adaptive(tokenizer, Fixed(tokenizer.config.candidates, [8, 4, 2]), {"name": "tiny"})
    found = evaluate(system, real, small, networks=networks, batch=3)
    clips = to_network(real.clips)
    lengths = torch.tensor([[8, 4, 2]] * COUNT)
    codes = tokenizer.encode(clips, lengths)
    made = (tokenizer.decode(codes) * 255).round() / 255
    for name in ("psnr", "l1", "mse"):
        expected = getattr(pixels, name)(clips, made)
        assert np.allclose(found.per_clip[name], expected, rtol=1e-4), name
        assert found.metrics[name].value == pytest.approx(float(expected.mean()), rel=1e-4)
        low, high = found.intervals[name]
        assert low < found.metrics[name].value < high
        assert found.metrics[name].spread == pytest.approx((high - low) / 2)
    assert found.metrics["mean_tokens"].value == 14
    assert found.model["histogram"] == {"14": COUNT}
    assert found.model["tokens_per_block"] == [8, 4, 2]
    bits = 14 * np.log2(240) + 3 * np.log2(3)
    assert found.metrics["bits_per_pixel"].value == pytest.approx(bits / (FRAMES * SIZE * SIZE))
    assert found.metrics["codebook_usage"].value == pytest.approx(len(codes.codes.unique()) / 240)
    assert found.metrics["codebook_usage"].n == 14 * COUNT
    assert 1 <= found.metrics["codebook_perplexity"].value <= 240


def test_values_depend_on_neither_batches_nor_shards(real, small, networks, tokenizer):
    system = Adaptive(tokenizer, Random(tokenizer.config.candidates, 3), {})
    one = evaluate(system, real, small, networks=networks, batch=COUNT)
    other = evaluate(system, real, small, networks=networks, batch=2, shard_length=3)
    assert one.per_clip["tokens"].tolist() == other.per_clip["tokens"].tolist()
    assert len(set(one.per_clip["tokens"].tolist())) > 1
    for name, metric in one.metrics.items():
        assert metric.value == pytest.approx(other.metrics[name].value, rel=1e-3, abs=1e-6), name


def test_motion_is_measured_of_every_reconstruction(real, small, networks):
    found = evaluate(lambda clips: 0.25 + clips / 2, real, small, metrics=["l1"], batch=2, shard_length=3)
    assert [found.metrics[name].value for name in MOTION] == pytest.approx([0.5, 1.0], abs=0.02)
    for name in MOTION:
        low, high = found.intervals[name]
        assert low <= found.metrics[name].value <= high
        assert (found.metrics[name].n, found.metrics[name].direction) == (COUNT, "higher")
        assert found.metrics[name].spread == pytest.approx((high - low) / 2)
    still = evaluate(lambda clips: clips[:, :, :1].expand_as(clips), real, small, metrics=["l1"])
    assert [still.metrics[name].value for name in MOTION] == [0, 0]


def test_samples_of_a_generator_have_no_motion_to_compare(real, small, networks):
    samples = dataclasses.replace(small, metrics=("gfvd",), optional=())
    assert evaluate(lambda clips: clips / 2, real, samples, networks=networks).metrics.keys() == {"gfvd"}


def test_motion_of_clips_that_do_not_move_is_named_and_in_no_record(real, small):
    pixels = np.repeat(np.array(real.clips[:, :1]), FRAMES, axis=1)
    found = evaluate(lambda clips: clips / 2, pixels, small, metrics=["l1"])
    assert found.metrics.keys() == {"l1"}
    assert found.model["infinite"] == dict.fromkeys(MOTION, "nan")


def test_more_noise_is_worse_in_every_metric(real, small, networks):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(COUNT, 3, FRAMES, SIZE, SIZE, generator=generator)
    small = dataclasses.replace(small, metrics=(*small.metrics, "kvd"))

    def noisy(strength: float) -> dict[str, float]:
        system = Foreign(lambda clips: (clips + strength * noise[: len(clips)]).clamp(0, 1))
        found = evaluate(system, real, small, networks=networks, batch=COUNT)
        return {name: metric.value for name, metric in found.metrics.items()}

    steps = [noisy(strength) for strength in (0.05, 0.15, 0.4)]
    for name in ("psnr", "ssim", "l1", "mse", "rfvd", "kvd"):
        sign = -1 if name in ("psnr", "ssim") else 1
        values = [sign * step[name] for step in steps]
        assert values == sorted(values), name


def test_both_sides_are_brought_to_the_measured_size(real, small, networks):
    shrunk = dataclasses.replace(small, measured_size=8, metrics=("l1", "rfvd"))
    # A pattern that only the full size shows: the mean over each 2x2 square stays.
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(SIZE // 2, SIZE // 2) * 0.1
    found = {
        protocol.name + str(protocol.measured_size): evaluate(
            lambda clips: clips * 0.5 + 0.25 + pattern, real, protocol, networks=networks, metrics=["l1"]
        )
        .metrics["l1"]
        .value
        for protocol in (shrunk, small)
    }
    plain = evaluate(lambda clips: clips * 0.5 + 0.25, real, shrunk, networks=networks).metrics["l1"].value
    assert found["small8"] == pytest.approx(plain, rel=0.1)
    assert found["smallNone"] > found["small8"]


def test_rounding_is_the_protocols(real, small):
    def almost(clips: torch.Tensor) -> torch.Tensor:
        return (clips + 0.4 / 255).clamp(0, 1)

    assert evaluate(almost, real, small, metrics=["l1"]).metrics["l1"].value == pytest.approx(0, abs=1e-6)
    exact = dataclasses.replace(small, rounding=False)
    assert evaluate(almost, real, exact, metrics=["l1"]).metrics["l1"].value == pytest.approx(0.4 / 255, rel=1e-2)


# What may be measured


def test_functions_objects_and_outputs_serve_alike(real, small):
    class Codec:
        def encode(self, clips: torch.Tensor) -> torch.Tensor:
            return clips / 2

        def decode(self, codes: torch.Tensor) -> torch.Tensor:
            return codes

    def with_codes(clips: torch.Tensor) -> Output:
        codes = torch.arange(5).repeat(len(clips))
        return Output(clips / 2, codes, torch.tensor([[5]] * len(clips)))

    coder = Foreign(with_codes, codebook_size=10)
    measured = [evaluate(thing, real, small, metrics=["l1"]) for thing in (Codec(), lambda clips: clips / 2, coder)]
    assert len({found.metrics["l1"].value for found in measured}) == 1
    assert measured[2].metrics["codebook_usage"].value == 0.5
    assert measured[2].metrics["mean_tokens"].value == 5


def test_what_reconstructs_nothing_is_refused(real, small, tokenizer):
    with pytest.raises(EvaluationError, match="cannot measure a int"):
        evaluate(3, real, small)
    with pytest.raises(EvaluationError, match="needs assignments"):
        evaluate(tokenizer, real, small)


def outputs() -> dict[str, Any]:
    def miscounted(clips: torch.Tensor) -> Output:
        return Output(clips, torch.zeros(3, dtype=torch.int64), torch.tensor([[2]] * len(clips)))

    return {
        "is a ndarray, not a tensor": lambda clips: clips.numpy(),
        "differ in shape": lambda clips: clips[..., :8],
        "NaN": lambda clips: clips * float("nan"),
        "divide 0-255 pixels": lambda clips: clips * 255,
        "must be floats": lambda clips: (clips * 255).to(torch.uint8),
        "one code per token": miscounted,
        r"must be \(B, K\) for 7 clips": lambda clips: Output(clips, None, torch.ones(len(clips), dtype=torch.int64)),
    }


@pytest.mark.parametrize("told", outputs())
def test_output_that_is_no_clip_is_refused_with_its_cause(told, real, small):
    with pytest.raises(EvaluationError, match=rf"clips 0\.\.6.*{told}"):
        evaluate(outputs()[told], real, small, metrics=["l1"])


class Fresh(torch.nn.Module):
    """Perfect in evaluation mode alone: in training mode it drops values and follows the statistics of its clips."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm, self.frozen = torch.nn.Dropout(0.5), torch.nn.BatchNorm3d(3), torch.nn.Dropout(0.5).eval()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        return clips

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(codes)).clamp(0, 1)


class Wrapper:
    """Somebody's codec, no module itself."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.parts = {"decoder": module}

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        return clips

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.parts["decoder"].decode(codes)


GLOBAL = Fresh()


@pytest.mark.parametrize(
    "made_of",
    [
        lambda module: module,
        Wrapper,
        lambda module: module.decode,
        lambda module: functools.partial(Fresh.decode, module),
        lambda module: lambda clips: module.decode(clips),
        lambda module: Foreign(lambda clips: Wrapper(module).decode(clips)),
    ],
    ids=["module", "wrapper", "method", "partial", "closure", "system"],
)
def test_a_module_in_training_mode_is_measured_in_evaluation_mode_and_left_as_it_was(made_of, real, small):
    module = Fresh()
    found = evaluate(made_of(module), real, small, metrics=["l1"], batch=2)
    assert found.metrics["l1"].value == pytest.approx(0, abs=1e-5)
    assert module.norm.num_batches_tracked == 0
    modes = [part.training for part in (module, module.drop, module.norm, module.frozen)]
    assert modes == [True, True, True, False]


def test_a_module_that_a_function_names_is_found_and_left_even_after_an_error(real, small):
    def broken(clips: torch.Tensor) -> torch.Tensor:
        assert not GLOBAL.training
        return GLOBAL.decode(clips) * 255

    with pytest.raises(EvaluationError, match="divide 0-255 pixels"):
        evaluate(broken, real, small, metrics=["l1"])
    assert GLOBAL.training
    assert GLOBAL.drop.training


# Protocol and limit


def test_another_number_of_clips_needs_a_limit(real, small, networks):
    with pytest.raises(EvaluationError, match="measures 7 clips, 4 were given: pass limit=4"):
        evaluate(Identity(), real.head(4), small)
    with pytest.raises(EvaluationError, match="limit=8 of 7 clips"):
        evaluate(Identity(), real, small, limit=8)
    found = evaluate(Identity(), real, small, limit=4, networks=networks)
    assert found.metrics["rfvd"].n == 4
    assert found.protocol["limit"] == 4
    assert found.protocol["measured_clips"] == 4
    assert found.protocol["comparable"] is False


def test_one_clip_has_values_but_no_distribution(real, small, networks):
    found = evaluate(Halved(), real, small, limit=1, metrics=["l1"])
    assert found.metrics["l1"].spread is None
    assert found.intervals == {}
    with pytest.raises(EvaluationError, match=r"rfvd of 1 samples: .*leave it out"):
        evaluate(Halved(), real, small, limit=1, networks=networks)


def test_clips_of_unknown_origin_are_measured_but_not_comparable(real, small):
    found = evaluate(Identity(), np.array(real.clips), small, metrics=["l1"])
    assert found.protocol["comparable"] is False
    assert any("data is 'array'" in told for told in found.protocol["deviations"])


def test_metrics_are_those_of_the_protocol(real, small):
    assert evaluate(Identity(), real, small, metrics=["l1"]).metrics.keys() == {"l1", *MOTION}
    with pytest.raises(EvaluationError, match="does not define 'gfvd': it has psnr"):
        evaluate(Identity(), real, small, metrics=["gfvd"])


# Interruptions and the cache


def test_an_interrupted_evaluation_goes_on_where_it_stopped(real, small, networks, tmp_path):
    whole = evaluate(Halved(), real, small, networks=networks)
    options: dict[str, Any] = {"networks": networks, "work": tmp_path / "work", "shard_length": 2, "batch": 2}
    with pytest.raises(KeyboardInterrupt):
        evaluate(Halved(mortal_at=5), real, small, **options)
    system = Halved()
    again = evaluate(system, real, small, **options)
    assert system.asked == [4, 5, 6]
    assert again.resumed == 4
    for name, metric in whole.metrics.items():
        assert metric.value == pytest.approx(again.metrics[name].value, rel=1e-5, abs=1e-9), name


def test_a_shard_serves_only_what_made_it(real, small, networks, tmp_path):
    def measure(system: evaluation.System, protocol: Protocol = small, clips: Any = real) -> int:
        return evaluate(system, clips, protocol, networks=networks, work=tmp_path / "work").resumed

    assert measure(Halved()) == 0
    assert measure(Halved()) == COUNT
    other = Halved()
    other.identity = {"name": "other"}
    assert measure(other) == 0
    assert measure(Halved(), dataclasses.replace(small, rounding=False)) == 0
    assert measure(Halved(), clips=255 - np.array(real.clips)) == 0
    networks["i3d"] = Extractor("1" * 64)
    assert measure(Halved()) == 0


def test_a_function_without_a_name_cannot_be_resumed(real, small, tmp_path):
    with pytest.raises(EvaluationError, match="needs a system with an identity"):
        evaluate(lambda clips: clips, real, small, metrics=["l1"], work=tmp_path / "work")
    named = Foreign(lambda clips: clips, {"name": "mine 1"})
    assert evaluate(named, real, small, metrics=["l1"], work=tmp_path / "work").resumed == 0


def test_reference_features_are_computed_once(real, small, cache):
    extractor = Extractor()
    evaluate(Identity(), real, small, metrics=["rfvd"], networks={"i3d": extractor})
    assert extractor.seen == 2 * COUNT
    evaluate(Halved(), real, small, metrics=["rfvd"], networks={"i3d": extractor})
    assert extractor.seen == 3 * COUNT  # the reconstructions alone
    other = Extractor("1" * 64)
    evaluate(Identity(), real, small, metrics=["rfvd"], networks={"i3d": other})
    assert other.seen == 2 * COUNT
    assert len(list((cache / "features").glob("*.safetensors"))) == 2


def test_a_longer_set_reuses_the_shards_of_a_shorter(real, tmp_path):
    extractor, store = Extractor(), shards.ShardStore(tmp_path / "store")
    short = clip_features(extractor, real.clips[:4], store, shard_length=2)
    whole = clip_features(extractor, real.clips, store, shard_length=2)
    assert extractor.seen == COUNT
    assert np.array_equal(whole[:4], short)
    sizes = [clip_features(extractor, real.clips, store, precision=p).shape for p in ("fp32", "bf16")]
    assert sizes == [(COUNT, 6)] * 2
    assert extractor.seen == 3 * COUNT


@pytest.mark.parametrize("damage", ["cut", "flipped", "swapped"])
def test_a_damaged_shard_is_made_again_and_never_used(damage, real, tmp_path):
    extractor, store = Extractor(), shards.ShardStore(tmp_path / "store")
    good = clip_features(extractor, real.clips, store, shard_length=4)
    first, second = sorted(store.folder.glob("*.safetensors"))
    content = first.read_bytes()
    harmed = {"cut": content[:-9], "flipped": content[:-1] + bytes([content[-1] ^ 64]), "swapped": second.read_bytes()}
    first.write_bytes(harmed[damage])
    with pytest.warns(UserWarning, match=f"{first.name}.*it is computed again"):
        again = clip_features(extractor, real.clips, store, shard_length=4)
    assert np.array_equal(good, again)
    assert store.damaged == [first.name]
    assert first.read_bytes() == content
    assert not list(store.folder.glob("*.partial"))


def test_damage_is_counted_in_the_evaluation(real, small, networks, tmp_path):
    evaluate(Halved(), real, small, networks=networks, work=tmp_path / "work")
    for path in (*(tmp_path / "work").iterdir(), *(tmp_path / "cache" / "features").iterdir()):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="not a complete shard"):
        found = evaluate(Halved(), real, small, networks=networks, work=tmp_path / "work")
    assert (found.damaged, found.resumed) == (2, 0)


def test_an_extractor_must_say_what_it_is(real, tmp_path):
    store = shards.ShardStore(tmp_path / "store")
    with pytest.raises(shards.FeatureError, match="lacks name"):
        clip_features(lambda clips: clips, real.clips, store)  # type: ignore[arg-type]

    class Broken(Extractor):
        def __call__(self, clips: torch.Tensor) -> torch.Tensor:
            return super().__call__(clips) * float("nan")

    with pytest.raises(shards.FeatureError, match="not finite"):
        clip_features(Broken(), real.clips, store)


def test_code_without_a_version_is_known_by_its_file():
    assert shards.code_version(Extractor()) == "1"
    assert shards.code_version(pixels.psnr) == shards.code_version(pixels.l1)
    assert shards.code_version(pixels.psnr) != shards.code_version(evaluate)
    with pytest.raises(shards.FeatureError, match="give it an attribute `version`"):
        shards.code_version(3)


# Folders


def write_folder(folder: Path, kind: str, clips: np.ndarray) -> Path:
    folder.mkdir()
    if kind == "one array":
        np.save(folder / "all.npy", clips)
    for number, clip in enumerate(clips):
        if kind == "arrays":
            np.save(folder / f"clip{number}.npy", clip)  # clip10 comes after clip9
        if kind == "floats":
            np.save(folder / f"clip{number}.npy", clip.astype(np.float32) / 255)
        if kind == "images":
            (folder / f"clip{number}").mkdir()
            for index, frame in enumerate(clip):
                Image.fromarray(frame).save(folder / f"clip{number}" / f"{index}.png")
    return folder


@pytest.mark.parametrize("kind", ["one array", "arrays", "floats", "images"])
def test_a_folder_of_clips_is_measured_as_the_clips_are(kind, real, small, networks, tmp_path):
    made = (np.array(real.clips) // 2).astype(np.uint8)
    folder = write_folder(tmp_path / "fake", kind, made)
    system = Reconstructed(FolderClips(folder, frames=FRAMES, size=SIZE))
    found = evaluate(system, real, small, networks=networks, batch=3)
    expected = pixels.l1(to_network(real.clips), to_network(made))
    assert np.allclose(found.per_clip["l1"], expected, atol=1e-6)
    assert found.protocol["comparable"] is True
    assert found.model["files"] == (1 if kind == "one array" else COUNT)


def test_folder_against_folder(real, small, networks, tmp_path):
    sides = {}
    for name, clips in (("real", np.array(real.clips)), ("fake", 255 - np.array(real.clips))):
        sides[name] = FolderClips(write_folder(tmp_path / f"{name}s", "images", clips), frames=FRAMES, size=SIZE)
    found = evaluate(Reconstructed(sides["fake"]), sides["real"], small, networks=networks)
    assert found.metrics["l1"].value > 0.05
    assert found.metrics["rfvd"].value > 0
    assert found.protocol["comparable"] is False
    limited = evaluate(Reconstructed(sides["fake"]), sides["real"], small, networks=networks, limit=3)
    assert np.array_equal(limited.per_clip["l1"], found.per_clip["l1"][:3])


def named_folder(folder: Path, clips: dict[str, np.ndarray]) -> FolderClips:
    folder.mkdir()
    for name, clip in clips.items():
        np.save(folder / f"{name}.npy", clip)
    return FolderClips(folder, frames=FRAMES, size=SIZE)


def test_clips_of_two_folders_are_paired_by_name(real, small, tmp_path):
    """Names that sort otherwise, such as clip1 and clip01, and clips beyond a limit are no matter."""
    clips = dict(zip(["zebra", "apple", "mango", "kiwi", "pear", "fig", "lemon"], np.array(real.clips), strict=True))
    reference = named_folder(tmp_path / "references", clips)
    (tmp_path / "fake").mkdir()
    for name, clip in clips.items():
        (tmp_path / "fake" / name).mkdir()
        for index, frame in enumerate(clip):
            Image.fromarray(frame).save(tmp_path / "fake" / name / f"{index}.png")
    fake = Reconstructed(FolderClips(tmp_path / "fake", frames=FRAMES, size=SIZE))
    for limit in (None, 3):
        found = evaluate(fake, reference, small, metrics=["l1"], limit=limit, batch=2)
        assert found.per_clip["l1"].tolist() == [0] * (limit or COUNT)
        assert found.model["paired_by"] == "name"


def test_a_clip_whose_name_has_no_pair_is_refused(real, small, tmp_path):
    clips = np.array(real.clips)
    reference = named_folder(tmp_path / "references", dict(zip("gfedcba", clips, strict=True)))
    numbered = named_folder(tmp_path / "numbered", {f"{i:04d}": clip for i, clip in enumerate(clips)})
    with pytest.raises(EvaluationError, match=r"has no clip a \(0000 is its clip 0\): .*Name a reconstruction"):
        evaluate(Reconstructed(numbered), reference, small, metrics=["l1"])


def test_clips_without_names_are_paired_by_order_and_the_record_says_so(real, small, tmp_path):
    numbered = named_folder(tmp_path / "numbered", {f"{i:04d}": clip for i, clip in enumerate(np.array(real.clips))})
    found = evaluate(Reconstructed(numbered), real, small, metrics=["l1"])
    assert found.per_clip["l1"].tolist() == [0] * COUNT
    assert found.model["paired_by"] == "order"
    one_array = Reconstructed(
        FolderClips(write_folder(tmp_path / "one", "one array", np.array(real.clips)), frames=FRAMES, size=SIZE)
    )
    assert evaluate(one_array, numbered, small, metrics=["l1"]).model["paired_by"] == "order"


def test_a_folder_of_videos_must_hold_clips_of_the_shape(real, tmp_path):
    (tmp_path / "films").mkdir()
    for number, size in enumerate((SIZE, 2 * SIZE)):
        with av.open(str(tmp_path / "films" / f"{number}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=20)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for index in range(FRAMES):
                picture = np.full((size, size, 3), 10 * index, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    films = FolderClips(tmp_path / "films", frames=FRAMES, size=SIZE)
    assert np.rint(films[:1][0, :, 8, 8, 0] / 10).tolist() == list(range(FRAMES))
    with pytest.raises(EvaluationError, match=r"1\.mkv: 12 frames of 32x32"):
        films[1:2]


def written(array: np.ndarray, share: float = 1.0, suffix: str = "") -> bytes:
    """What numpy.save writes of an array, or the first part of it; with suffix "npz", what numpy.savez does."""
    held = io.BytesIO()
    np.savez(held, array) if suffix else np.save(held, array, allow_pickle=True)
    return held.getvalue()[: int(share * len(held.getvalue()))]


BROKEN = {
    "text": b"text\n",
    "nothing": b"",
    "objects": written(np.array([{"a": 1}], dtype=object)),
    "cut": written(np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8), 0.5),
    "header": written(np.zeros(3), 0.3),
    "several": written(np.zeros(3), suffix="npz"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("count", [1, 2])  # one file is memory-mapped, of several each is read
def test_a_file_that_is_no_whole_array_is_named(tmp_path, kind, count):
    for number in range(count):
        (tmp_path / f"{number}.npy").write_bytes(BROKEN[kind])
    with pytest.raises(EvaluationError, match=r"0\.npy: (not a complete array of numbers|several arrays)"):
        FolderClips(tmp_path, frames=FRAMES, size=SIZE)[:1]


def test_a_folder_that_does_not_fit_is_refused(real, small, tmp_path):
    def system(folder: Path) -> Reconstructed:
        return Reconstructed(FolderClips(folder, frames=FRAMES, size=SIZE))

    fewer = write_folder(tmp_path / "fewer", "arrays", np.array(real.clips[:5]))
    with pytest.raises(EvaluationError, match="holds 5 clips, the reference 7"):
        evaluate(system(fewer), real, small, metrics=["l1"])
    smaller = write_folder(tmp_path / "smaller", "images", np.array(real.clips[:, :, :8, :8]))
    with pytest.raises(EvaluationError, match="12 frames of 8x8"):
        evaluate(system(smaller), real, small, metrics=["l1"])
    shorter = write_folder(tmp_path / "shorter", "arrays", np.array(real.clips[:, :5]))
    with pytest.raises(
        EvaluationError, match=r"clip0\.npy: expected a uint8 or float clip .*, got uint8 \(5, 16, 16, 3\)"
    ):
        evaluate(system(shorter), real, small, metrics=["l1"])
    (fewer / "more").mkdir()
    Image.fromarray(real.clips[0, 0]).save(fewer / "more" / "0.png")
    with pytest.raises(EvaluationError, match="arrays and images together"):
        system(fewer)
    with pytest.raises(EvaluationError, match="no such folder"):
        system(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="holds no clip"):
        system(tmp_path / "empty")


def test_a_packages_version_changes_with_any_of_its_modules(tmp_path, monkeypatch):
    package = tmp_path / "brief"
    package.mkdir()
    for name in ("__init__", "network", "masks"):
        (package / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module("brief")
    before = shards.package_version(found)
    assert before == shards.package_version(found)
    (package / "masks.py").write_text("causal = True\n")
    assert shards.package_version(found) != before
