"""Stage 3: what a router learns from, and that seeing the clips once is the same as seeing them at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evatok.assignments import reward
from evatok.data.clips import ClipSet, to_network
from evatok.experiments import stage3_router
from evatok.experiments.stage3_router import Lesson, Objective, operating_point
from evatok.experiments.tracking import ConfigError
from evatok.routing.initialise import initialise_router
from evatok.routing.networks import RouterConfig, build_router
from evatok.search import candidate_table
from evatok.training import loop

COUNT = 6
CONFIG: dict[str, Any] = {
    "metric": "l1",
    "w_q": 1.2,
    "token_share": 0.0,
    "batch": 4,
    "seed": 0,
    "target": "soft",
    "temperature": 0.15,
    "flip": True,
    "bf16": False,
    "device": "cpu",
}


@pytest.fixture
def lesson(moving_clips) -> Lesson:
    """Clips of gratings with made-up scores that fall with the tokens, each clip's in its own way."""
    random = np.random.default_rng(0)
    origin = {"levels": [2, 4, 8], "blocks": 3, "tokenizer": "none", "data": {}}
    tables, clips = {}, {}
    for name, seed in (("train", 1), ("validation", 2)):
        scores = random.random((COUNT, 27)) + np.linspace(1, 0, 27)
        tables[name] = candidate_table.CandidateTable(np.arange(COUNT), {"l1": scores.astype(np.float32)}, origin)
        clips[name] = ClipSet(moving_clips(COUNT, 12, 16, seed), None, {"name": name, "sha256": name})
    return Lesson(tables, clips, operating_point(tables["train"], CONFIG))


def router_of(kind: str, lesson: Lesson):
    torch.manual_seed(0)
    shape = RouterConfig(kind, (2, 4, 8), frames=12, size=16, patch=(4, 8, 8), width=16, layers=1, heads=2)
    router = build_router(shape)
    initialise_router(router, to_network(lesson.train_clips.clips))
    return router.eval()


def test_what_was_seen_once_is_what_every_step_would_see(lesson, monkeypatch):
    router = router_of("features", lesson)
    kept = Objective(lesson, CONFIG, router)
    monkeypatch.setattr(type(router), "MIRROR_BLIND", False)
    fresh = Objective(lesson, CONFIG, router)
    assert kept.seen is not None
    assert fresh.seen is None
    for step in range(4):
        losses = [one(router, step, loop.step_generator(0, step))[0].item() for one in (kept, fresh)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_papers_router_sees_its_clips_anew(lesson):
    assert Objective(lesson, CONFIG, router_of("vit", lesson)).seen is None


def test_regret_is_what_the_batch_loses_to_its_best_candidates(lesson):
    router = router_of("vit", lesson)
    config = {**CONFIG, "batch": COUNT, "flip": False}
    _, terms = Objective(lesson, config, router)(router, 0, loop.step_generator(0, 0))
    rewards = lesson.rewards["train"]
    with torch.no_grad():
        choice = router(to_network(lesson.train_clips.clips)).argmax(1).numpy()
    lost = rewards.max(1) - rewards[np.arange(COUNT), choice]
    assert float(terms["regret"]) == pytest.approx(lost.mean(), abs=1e-5)


def test_examining_is_the_percentile_of_the_routers_first_choices(lesson):
    router = router_of("features", lesson)
    with torch.no_grad():
        choice = router(to_network(lesson.validation_clips.clips)).argmax(1).numpy()
    expected = reward.percentile(lesson.rewards["validation"], choice)
    assert lesson.examine(router)["percentile"] == pytest.approx(expected)


def test_the_control_is_one_assignment_chosen_on_training_clips_alone(lesson):
    train, held_out = lesson.rewards["train"], lesson.rewards["validation"]
    always = max(range(27), key=lambda candidate: train[:, candidate].mean())
    best, worst = held_out.max(1).mean(), held_out.min(1).mean()
    expected = 100 * (held_out[:, always].mean() - worst) / (best - worst)
    assert lesson.control()["fixed_percentile"] == pytest.approx(expected)
    lesson.rewards["validation"] = held_out[:, ::-1].copy()
    assert reward.best_fixed(lesson.rewards["validation"]) != always, "what is best there is not looked at"
    assert lesson.control()["fixed_percentile"] < expected


def test_a_router_for_other_levels_than_the_tables_is_refused(lesson):
    config = {**CONFIG, "modality": "video", "size": "toy", "router": "vit", "head": "joint", "dropout": 0.0}
    with pytest.raises(ConfigError, match="a toy router has levels"):
        stage3_router._router(config, lesson)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"levels": [2, 4, 9]}, r"different levels: \[2, 4, 8\] and \[2, 4, 9\]"),
        ({"tokenizer": "other"}, "different tokenizer: none and other"),
        ({"perceptual": "st-lpips"}, "different perceptual: None and st-lpips"),
        ({"data": {"source": "noise", "split": "train", "sha256": "b"}}, "scores clips of the training table"),
        ({"data": {"source": "copy", "split": "validation", "sha256": "a"}}, "scores clips of the training table"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(tmp_path, change, told):
    origin = {"levels": [2, 4, 8], "blocks": 3, "tokenizer": "none"}
    data = {name: {"source": "noise", "split": name, "sha256": name} for name in ("train", "validation")}
    data["train"]["sha256"] = "a"
    config = dict(CONFIG)
    for name in ("train", "validation"):
        its = {**origin, "data": data[name], **(change if name == "validation" else {})}
        scores = {"l1": np.zeros((COUNT, 27), np.float32)}
        candidate_table.write(tmp_path / name, candidate_table.CandidateTable(np.arange(COUNT), scores, its))
        config[f"{name}_table"] = str(tmp_path / name)
    with pytest.raises(candidate_table.CurationError, match=told):
        Lesson.read({**config, "size": "toy", "fps": None, "records_folder": str(tmp_path)})
