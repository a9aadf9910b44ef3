"""Images through all five stages as a user runs them: the same experiments, on clips of one frame and one block."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evatok.data.clips import ClipSetError
from evatok.data.manifest import ManifestError
from evatok.evaluation import protocols
from evatok.experiments import (
    curves,
    evaluate,
    sample,
    stage1_proxy,
    stage2_curation,
    stage3_router,
    stage4_final,
    stage5_generator,
)
from evatok.experiments.tracking import ConfigError
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.routing.networks import IMAGE_ROUTER_SIZES
from evatok.routing.trained_router import RoutingError
from evatok.storage import checkpoints
from evatok.tokenizers.evatok import IMAGE_SIZES, AdaptiveTokenizer
from evatok.training import loop
from tests.factories import FOUR_STEPS, ONE_LAYER, TINY_IMAGE, configured, places, record_of, saved_router

TINY = dataclasses.replace(TINY_IMAGE, size=32)
"""4 x 4 patches, levels 2, 4, 6 and 8."""

COUNTS = {"train": 12, "validation": 6}


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """The image toy is a smaller network, and so are its router and generator."""
    monkeypatch.setitem(IMAGE_SIZES, "toy", TINY)
    router = dataclasses.replace(
        IMAGE_ROUTER_SIZES["toy"], levels=TINY.levels, size=32, patch=(1, 8, 8), width=16, layers=1, heads=2
    )
    monkeypatch.setitem(IMAGE_ROUTER_SIZES, "toy", router)
    monkeypatch.setitem(GENERATOR_SIZES, "toy", ONE_LAYER)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A manifest of images of two classes, with splits."""
    random, lines = np.random.default_rng(0), ["path,label,split"]
    for split, count in COUNTS.items():
        for number in range(count):
            label = ("dark", "light")[number % 2]
            pixels = random.integers(0, 128, (20, 24, 3)) + 127 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{split}{number}.png")
            lines.append(f"{split}{number}.png,{label},{split}")
    (tmp_path / "images.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def brief(monkeypatch) -> None:
    """Protocols of these images, in place of ImageNet's."""
    for task, metrics in (("reconstruction", ("psnr", "rfd_efficientnet")), ("generation", ("gfd_efficientnet",))):
        base = protocols.get(f"imagenet-{task}-50k")
        small = dataclasses.replace(base, name=f"brief-{task}", clips=COUNTS["validation"], size=32, metrics=metrics)
        monkeypatch.setitem(protocols.PROTOCOLS, small.name, small)


@pytest.fixture
def run(folder):
    """Runs an experiment under its image configuration in a folder of its own: (experiment, name, **changes)."""
    steps = {**FOUR_STEPS, "train_clips": 12, "validation_clips": 6, "bf16": False}

    def take(experiment, name: str, **changes):
        settings = {"data": str(folder / "images.csv"), **steps, **places(folder / name), **changes}
        known = configured(experiment, "image_toy")
        return experiment.run(
            named_configs=["image_toy"], config_updates={k: v for k, v in settings.items() if k in known}
        )

    return take


@pytest.mark.slow
@pytest.mark.usefixtures("runs", "brief", "colour_features")
def test_images_go_through_every_stage(run, folder):
    def path(name: str) -> str:
        return str(folder / name / "model.safetensors")

    proxy = run(stage1_proxy.ex, "proxy", direct_steps=2, perceptual="none")
    found = record_of(folder, proxy, "proxy")
    assert found.model["facts"].items() >= {"modality": "image", "front": "cnn"}.items()
    assert {name for name in found.metrics if name.startswith("psnr")} == {
        f"psnr_uniform_{level}" for level in TINY.levels
    }
    lines = loop.read_curve(folder / "proxy" / "work")
    assert ["direct" in line for line in lines] == [True, True, False, False]

    tables = {f"{split}_table": str(folder / f"{split}.parquet") for split in COUNTS}
    for split, count in COUNTS.items():
        table = {"table": tables[f"{split}_table"], "perceptual": "none", "tokenizer": path("proxy")}
        scored = run(stage2_curation.ex, "scores", split=split, clips=count, **table, work=str(folder / "scores"))
        assert scored.result["complete"]

    run(stage3_router.ex, "router", **tables, metric="l1")
    head = checkpoints.load(Path(path("router"))).weights["head.linear.weight"]
    assert head.shape[0] == len(TINY.levels)

    judge = {"discriminator": "patch", "perceptual": "none", "direct_steps": 1, "start_from": ""}
    final = run(stage4_final.ex, "final", router=path("router"), **judge, discriminator_warmup=0, squared=1.0)
    assert "discriminator" in loop.read_curve(folder / "final" / "work")[-1]
    assert 2 <= record_of(folder, final, "final").metrics["mean_tokens"].value <= 8

    drawn_from = {"tokenizer": path("final"), "router": path("router")}
    run(stage5_generator.ex, "generator", **drawn_from)
    samples = run(
        sample.ex,
        "samples",
        **drawn_from,
        generator=path("generator"),
        protocol="brief-generation",
        metrics="gfd_efficientnet",
        output=str(folder / "shown"),
        per_clip="",
    )
    assert samples.result["metrics"].keys() >= {"gfd_efficientnet", "mean_tokens"}
    assert (folder / "shown" / "sheet.png").exists()

    measured = run(
        evaluate.ex,
        "measured",
        checkpoint=path("final"),
        assignment=f"router:{path('router')}",
        protocol="brief-reconstruction",
        metrics="psnr,rfd_efficientnet",
        per_clip="",
    )
    assert not {name for name in measured.result["metrics"] if name.startswith("motion")}

    curve = run(
        curves.ex,
        "curve",
        checkpoint=path("proxy"),
        table=tables["validation_table"],
        routers=path("router"),
        metric="l1",
        metrics="psnr,rfd_efficientnet",
        draws=3,
    )
    assert "uniform.2" in curve.result["points"]
    assert record_of(folder, curve, "curve").protocol["reference"] == "uniform.4"


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "mixed"}, ClipSetError, "'mixed' holds videos"),
        ({"change": 1.0}, ConfigError, "config key change: images have no change from frame to frame"),
        ({"front": "linear", "direct_steps": 4}, ConfigError, "config key direct_steps: front linear"),
        ({"modality": "video", "data": "images", "direct_steps": 0}, ClipSetError, "'images' holds images"),
        ({"modality": "video", "front": "cnn"}, ConfigError, "config key front: front cnn codes images of 1 frame"),
    ],
)
def test_what_images_are_not_is_refused_before_any_training(run, change, error, message):
    with pytest.raises(error, match=message):
        run(stage1_proxy.ex, "one", **change)


@pytest.mark.usefixtures("runs")
def test_convolutions_beside_a_shortcut_do_not_learn_to_reconstruct_alone(run, monkeypatch):
    monkeypatch.setitem(IMAGE_SIZES, "toy", dataclasses.replace(TINY, shortcut=True))
    with pytest.raises(ConfigError, match="config key direct_steps: of size toy a linear shortcut"):
        run(stage1_proxy.ex, "one", direct_steps=2)
    shape = stage1_proxy.tokenizer_training.shape_of(configured(stage1_proxy.ex, "image_toy", front="linear"))
    assert (shape.front, shape.shortcut) == ("linear", False)


@pytest.mark.usefixtures("runs")
def test_videos_are_not_trained_from_a_folder_of_images_alone(run, folder, tmp_path):
    (tmp_path / "set" / "dark").mkdir(parents=True)
    (folder / "train0.png").rename(tmp_path / "set" / "dark" / "0.png")
    with pytest.raises(ManifestError, match="dark holds 1 images, which configurations of modality=image"):
        run(stage1_proxy.ex, "one", modality="video", direct_steps=0, data=str(tmp_path / "set"))


@pytest.mark.usefixtures("runs")
def test_a_router_of_one_block_is_no_router_of_four(tmp_path):
    router = saved_router(tmp_path / "router.safetensors", (2, 4, 6, 8))
    with pytest.raises(RoutingError, match="the router was made for frames 16, the tokenizer has 1"):
        stage4_final.rule_of({"assignment": "router", "router": router, "device": "cpu"}, TINY)


def test_a_linear_front_of_images_is_the_same_network_otherwise():
    config = configured(stage1_proxy.ex, "image_toy", front="linear", direct_steps=0)
    shape = stage1_proxy.tokenizer_training.shape_of(config)
    assert (shape.front, shape.patch, shape.levels) == ("linear", (1, 8, 8), TINY.levels)
    names = {name.partition(".")[0] for name, _ in AdaptiveTokenizer(shape).named_parameters()}
    assert names == {"encoder", "decoder", "quantiser"}


def test_configurations_of_the_papers_images_hold_its_figures():
    """Supplement H: batch 256, 400k; router 25k x 256 at w_q 1.3; generators of 300 epochs, guidance 1.5."""
    final, router = configured(stage4_final.ex, "image_paper"), configured(stage3_router.ex, "image_paper")
    assert (final["batch"], final["steps"], final["uniform_tokens"]) == (256, 400_000, 256)
    assert (router["batch"], router["steps"], router["w_q"]) == (256, 25_000, 1.3)
    generator = configured(stage5_generator.ex, "image_paper")
    assert (generator["model"], generator["steps"]) == ("B", 300 * (1_281_167 // 256))
    assert configured(sample.ex, "image_paper")["guidance"] == 1.5
