"""The catalogue of metrics: one entry for each one that is measured, scored, compared or shown.

An entry can be looked up by any of its spellings: its name in records (`st_lpips_alex`), its name in stage 2 and the
perceptual loss (`st-lpips`), and the table columns that show it (`st_lpips`). This module imports no network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evatok.errors import EvatokError
from evatok.storage.records import Metric


class CatalogueError(EvatokError, ValueError):
    """A metric that is not in the catalogue."""


@dataclass(frozen=True)
class Entry:
    """One metric.

    Attributes:
        name: name in records; for values that only tables contain, such as savings, the name of the column.
        label: name in text.
        direction: "higher" or "lower" is better.
        unit: "dB", "%", ...; "" for none.
        decimals: number shown in tables and claims.
        per: "clip" (one value per clip, whose mean is recorded) or "set" (one value for all clips together).
        network: the frozen network it needs; "" for none.
        scored: name in stage 2 and the perceptual loss; "" if they do not use it.
        columns: table columns that show it.
    """

    name: str
    label: str
    direction: str
    unit: str = ""
    decimals: int = 1
    per: str = "clip"
    network: str = ""
    scored: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower") or self.per not in ("clip", "set"):
            raise CatalogueError(f"{self.name}: direction {self.direction!r} per {self.per!r} is not known")

    @property
    def higher(self) -> bool:
        return self.direction == "higher"

    @property
    def with_unit(self) -> str:
        """Label and unit, as on an axis: "PSNR (dB)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.name, *((self.scored,) if self.scored else ()), *self.columns)

    def measured(self, value: float, n: int, spread: float | None = None) -> Metric:
        """Make a record's entry from a value of this metric."""
        return Metric(value, self.unit, n, self.direction, spread)


METRICS = (
    Entry("psnr", "PSNR", "higher", "dB", 2, scored="psnr"),
    Entry("ssim", "SSIM", "higher", decimals=4),
    Entry("l1", "L1", "lower", decimals=4, scored="l1"),
    Entry("mse", "MSE", "lower", decimals=4, scored="mse"),
    Entry("lpips_vgg", "LPIPS", "lower", "", 4, "clip", "lpips-vgg", "lpips-vgg", ("lpips",)),
    Entry("lpips_alex", "LPIPS (AlexNet)", "lower", "", 4, "clip", "lpips-alex", "lpips-alex"),
    Entry("st_lpips_alex", "ST-LPIPS", "lower", "", 4, "clip", "st-lpips", "st-lpips", ("st_lpips",)),
    Entry("rfvd", "rFVD", "lower", "", 1, "set", "i3d"),
    Entry("gfvd", "gFVD", "lower", "", 1, "set", "i3d", columns=("ucf_gfvd", "k600_gfvd")),
    Entry("rfvd_extrapolated", "rFVD, extrapolated", "lower", "", 1, "set", "i3d"),
    Entry("kvd", "KVD", "lower", "", 1, "set", "i3d"),
    Entry("rfid", "rFID", "lower", "", 1, "set", "inception"),
    Entry("gfid", "gFID", "lower", "", 1, "set", "inception"),
    Entry("rfd_efficientnet", "Frechet distance of EfficientNet features", "lower", "", 3, "set", "efficientnet"),
    Entry("gfd_efficientnet", "Frechet distance of generated images", "lower", "", 3, "set", "efficientnet"),
    Entry("rkd_efficientnet", "kernel distance of EfficientNet features", "lower", "", 5, "set", "efficientnet"),
    Entry("gkd_efficientnet", "kernel distance of generated images", "lower", "", 5, "set", "efficientnet"),
    Entry("feature_frechet", "Frechet distance of features of frames", "lower", "", 2, "set", "frames"),
    Entry("feature_agreement", "cosine of features of frames", "higher", "", 3, "set", "frames"),
    Entry("motion_ratio", "motion ratio", "higher", "", 3, "set"),
    Entry("motion_correlation", "motion correlation", "higher", "", 3, "set"),
    Entry("mean_tokens", "tokens per clip", "lower", "tokens", columns=("tokens", "rtokens", "gtokens")),
    Entry("bits_per_pixel", "bits per pixel", "lower", "bit/pixel", 4),
    Entry("codebook_usage", "codebook usage", "higher", decimals=3, per="set"),
    Entry("codebook_perplexity", "codebook perplexity", "higher", "codes", per="set"),
    Entry("percentile", "proxy-reward percentile", "higher", "%", 2, "set"),
    Entry("fixed_percentile", "proxy-reward percentile of one assignment for all clips", "higher", "%", 2, "set"),
    Entry("top1", "top-1", "higher", "%", 2, "set"),
    Entry("top5", "top-5", "higher", "%", 2, "set"),
    Entry("proxy_reward", "proxy reward", "higher", decimals=3),
    Entry("beam_regret", "proxy reward lost against the assignment that a beam found", "lower", decimals=3),
    Entry("as_good_as_beam", "clips whose assignment is as good as the beam's", "higher", "%"),
    Entry("reward_over_uniform", "proxy reward over the best uniform assignment's", "higher", decimals=3),
    Entry("class_consistency", "samples that show their class", "higher", "%"),
    Entry("class_consistency_balanced", "samples that show their class, mean over classes", "higher", "%"),
    Entry("class_consistency_real_balanced", "real clips that show their class, mean over classes", "higher", "%"),
    Entry(
        "class_consistency_reconstructed_balanced",
        "reconstructions that show their class, mean over classes",
        "higher",
        "%",
    ),
    Entry("saving_rfvd", "tokens saved at equal rFVD", "higher", "%", 2, "set"),
    Entry("saving_st_lpips", "tokens saved at equal ST-LPIPS", "higher", "%", 2, "set"),
    Entry("saving_psnr", "tokens saved at equal PSNR", "higher", "%", 2, "set"),
    Entry("class_consistency_real", "real clips that show their class", "higher", "%"),
    Entry("class_consistency_reconstructed", "reconstructions that show their class", "higher", "%"),
    Entry("accuracy", "accuracy", "higher", "%"),
    Entry("agreement", "answers that two judges share", "higher", "%"),
    Entry("second_accuracy", "questions about real clips that the second judge answers right", "higher", "%"),
    Entry("dynamic_degree", "samples faster than the median real clip", "higher", "%"),
    Entry("smoothness", "evenness of motion", "higher", "%"),
    Entry("vbench", "VBench", "higher", "%", 2, "set"),
    Entry("balanced_accuracy", "accuracy, mean over classes", "higher", "%"),
    Entry("recall", "recall", "higher", "%"),
    Entry("f1", "F1", "higher", "%", per="set"),
    Entry("probe", "accuracy of a linear probe, mean over classes", "higher", decimals=3),
    Entry("reconstruction", "error of hidden patches", "lower", decimals=4),
    Entry("discriminator_accuracy", "discriminator's accuracy", "lower", decimals=3, per="set"),
    Entry("bits_per_code", "bits per code", "lower", "bit", 3, "set"),
    Entry("bits_per_length", "bits per length", "lower", "bit", 3, "set"),
    Entry("bits_per_clip", "bits per clip", "lower", "bit"),
    Entry("bits_per_clip_without_text", "bits per clip, captions hidden", "lower", "bit"),
    Entry("validation_tokens", "tokens per validation clip", "lower", "tokens"),
    Entry("codes_used", "codes in use", "higher", "codes", 0, "set"),
    Entry("noise_loss", "flow loss at full noise", "lower", decimals=4),
    Entry("feature_cosine", "cosine of the teacher's features", "higher", decimals=3),
    Entry("seam_ratio", "change at seams against elsewhere", "lower", decimals=3),
    Entry("saving", "tokens saved at equal quality", "higher", "%", 2, "set"),
    Entry("step_seconds", "seconds per step", "lower", "s", 3),
    Entry("decoding_seconds_per_clip", "seconds per clip, decoding", "lower", "s", 3),
    Entry("seconds_per_clip", "seconds per clip", "lower", "s", 3),
    Entry("wall_hours", "wall time", "lower", "h", 3, "set"),
    Entry("device_hours", "device time", "lower", "h", 3, "set"),
    Entry("pflop", "operations", "lower", "PFLOP", 3, "set"),
)
"""Every metric, in the order of tables."""

OF_SAMPLES = ("gfvd", "gfid", "gfd_efficientnet", "gkd_efficientnet")
"""Metrics that compare samples of a generator with real clips, where others compare reconstructions."""

COSTS = {"seconds": "s", "bytes": "B", "hours": "h", "flop": "FLOP", "psnr_db": "dB", "tokens": "tokens"}
"""Units of benchmark metrics, by a part of their name."""

_BY_SPELLING = {spelling: entry for entry in METRICS for spelling in entry.spellings}


def of(name: str) -> Entry:
    """Look up a metric by any of its spellings.

    Raises:
        CatalogueError: none has that spelling.
    """
    if name not in _BY_SPELLING:
        raise CatalogueError(f"no metric {name!r} in the catalogue: {', '.join(names(METRICS))}")
    return _BY_SPELLING[name]


def names(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Names of entries in records."""
    return tuple(entry.name for entry in entries)


def quality(scores: np.ndarray, name: str) -> np.ndarray:
    """Convert scores to float64, negated if lower is better, so that higher is always better.

    The paper prints Q as z-scored LPIPS without the minus; maximising that would choose the worst reconstruction.
    """
    values = np.asarray(scores, dtype=np.float64)
    return values if of(name).higher else -values


def unit_of_cost(name: str) -> str:
    """Unit of a benchmark's metric; "" for a plain count."""
    return next((unit for part, unit in COSTS.items() if part in name), "")
