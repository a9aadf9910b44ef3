"""Class consistency of generated clips, with its upper bounds.

A classifier trained on real clips counts the generated clips in which it recognises the requested class. It errs on
real clips too, and more often on their reconstructions; both rates are measured as well, since no generator can be
expected to exceed them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evatok.assignments.rules import Fixed, Rule
from evatok.data.clips import ClipSet
from evatok.experiments import tracking
from evatok.generation import code_cache
from evatok.generation.code_cache import Coder
from evatok.generation.flex_codes import flex_coder
from evatok.generation.order import OrderedGrammar
from evatok.generation.video_generator import VideoGenerator
from evatok.metrics import catalogue
from evatok.metrics.class_consistency import Classifier, Rates
from evatok.routing.rules import Routed
from evatok.routing.trained_router import Router
from evatok.storage import records
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.tokenizers.videoflextok import VideoFlexTok


@dataclass(frozen=True)
class ClassConsistency:
    """The tools that measure class consistency.

    Attributes:
        names: requested classes of the generated clips.
        coder: encoder of the reconstructions; None skips them.
    """

    video: VideoGenerator
    judge: Classifier
    names: list[str]
    coder: Coder | None

    @classmethod
    def of(cls, config: dict[str, Any], video: VideoGenerator, names: list[str]) -> ClassConsistency:
        """Build from the configured classifier and router; fail on a mismatch now, not after hours of sampling.

        Raises:
            CheckpointError: unknown classifier or router.
            ClassificationError: a class the classifier was not trained on.
            ConfigError: another router than the one that taught the generator.
        """
        judge = Classifier.load(Path(config["classifier"]), config["device"])
        judge.numbers(names)
        return cls(video, judge, names, coder_of(config, video))

    def measure(self, fake: np.ndarray, real: ClipSet) -> dict[str, Rates]:
        """Measure clips "generated", "real" and, under the tokenizer's own assignments, "reconstructed"."""
        told = [str(name) for name in code_cache.labels_of(real, self.video.checkpoint.facts.get("label", ""))]
        found = {"generated": self.judge.judge(fake, self.names), "real": self.judge.judge(real.clips, told)}
        if self.coder is not None:
            found["reconstructed"] = self.judge.judge(self._reconstructed(real, self.coder), told)
        return found

    def facts(self, found: dict[str, Rates]) -> dict[str, Any]:
        """Return the record's entry `model`: the classifier's hash, and each class's share and confusions."""
        shares = {what: rates.facts for what, rates in found.items()}
        return {
            "classifier": self.judge.checkpoint.sha256,
            "consistency": {"classes": list(self.judge.classes), **shares},
        }

    def _reconstructed(self, real: ClipSet, coder: Coder) -> np.ndarray:
        video = self.video
        coded = code_cache.code_set(coder, real.clips, mirrored=False, device=video.device)
        return video.clips(coded.batch(np.arange(len(real))))


def coder_of(config: dict[str, Any], video: VideoGenerator) -> Coder | None:
    """Build the encoder of reconstructions, None if these are not judged.

    VideoFlexTok's codes the generated number of tokens; for others see `rule_of`.
    """
    if not config["judge_reconstructions"]:
        return None
    if isinstance(video.grammar, OrderedGrammar):
        assert isinstance(video.tokenizer, VideoFlexTok)
        return flex_coder(video.tokenizer, video.grammar.kept, bf16=config["bf16"])
    assert isinstance(video.tokenizer, AdaptiveTokenizer)
    rule = rule_of(config, video)
    if rule is None:
        return None
    return code_cache.clip_coder(video.tokenizer, video.tokenizer.checkpoint.sha256, rule, bf16=config["bf16"])


def rule_of(config: dict[str, Any], video: VideoGenerator) -> Rule | None:
    """Return the assignment rule of the generator's training clips; None if no router is given.

    Raises:
        ConfigError: another router than the one that taught the generator.
    """
    assert isinstance(video.tokenizer, AdaptiveTokenizer)
    facts, shape = video.checkpoint.facts, video.tokenizer.config
    if facts.get("assignment") == "uniform":
        return Fixed(shape.candidates, facts.get("row", [])[:1])  # every block has the same tokens
    if not config["router"]:
        return None
    router, taught = Router.load(config["router"], config["device"]), video.checkpoint.parents.get("router", "")
    if router.checkpoint.sha256 != taught:
        raise tracking.ConfigError(
            f"config key router: {config['router']} is {router.checkpoint.sha256[:12]}, but the generator was "
            "trained on "
            f'assignments of {taught[:12]}; give that one, or router="" to leave reconstructions out'
        )
    return Routed(router, shape)


def metrics_of(rates: Rates, name: str = "class_consistency") -> dict[str, records.Metric]:
    """Return `name` over clips and `<name>_balanced` over classes; the spread is half a 95 % interval."""
    balanced = f"{name}_balanced"
    return {
        name: catalogue.of(name).measured(rates.accuracy, rates.clips, rates.half_interval),
        balanced: catalogue.of(balanced).measured(rates.balanced, rates.clips, rates.balanced_half_interval),
    }


def metrics_of_all(found: dict[str, Rates]) -> dict[str, records.Metric]:
    """Collect the metrics of all rates: plain names for generated clips, suffixed names for others."""
    metrics: dict[str, records.Metric] = {}
    for what, rates in found.items():
        metrics |= metrics_of(rates, "class_consistency" + ("" if what == "generated" else f"_{what}"))
    return metrics
