"""Features of frames tell clips apart: agreement is 1 with oneself, about 0 with others, and both metrics see blur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evatok.metrics.frame_features import FrameFeatures, feature_agreement, feature_frechet
from evatok.models.efficientnet import EfficientNet, EfficientNetLite0


@pytest.fixture(scope="module")
def features() -> FrameFeatures:
    """The network with weights of its own, as the published ones need a download."""
    torch.manual_seed(0)
    return FrameFeatures(EfficientNet(EfficientNetLite0(), source="untrained", weights_sha256="0" * 64))


def test_a_row_of_features_per_frame_with_a_half_for_its_change(features):
    clips = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = features(clips)
    assert found.shape == (6, 640)
    still = features(clips[:, :, :1].expand(-1, -1, 3, -1, -1))
    apart = (still[0] - still[3]).abs()
    assert float(apart[:320].max()) > 100 * float(apart[320:].max()), "still clips look different and change alike"


def test_agreement_is_one_with_itself_none_with_others_and_falls_with_noise():
    random = np.random.default_rng(0)
    real = random.normal(3.0, random.uniform(0.1, 2.0, 64), (500, 64))
    assert feature_agreement(real, real) == pytest.approx(1.0)
    assert abs(feature_agreement(real, random.permutation(real))) < 0.05
    little, much = (feature_agreement(real, real + random.normal(0, level, real.shape)) for level in (0.2, 2.0))
    assert 1 > little > much > 0
    with pytest.raises(ValueError, match="cannot be paired"):
        feature_agreement(real, real[:10])


def test_the_frechet_distance_ignores_pairs_and_sees_a_shift():
    random = np.random.default_rng(1)
    real = random.normal(size=(400, 8))
    assert feature_frechet(real, random.permutation(real)) == pytest.approx(0, abs=1e-6)
    assert feature_frechet(real, real + 1) == pytest.approx(8, rel=1e-3)
