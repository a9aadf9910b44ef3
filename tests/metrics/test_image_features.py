"""Features of single images by EfficientNet-Lite0: a row per frame, and no name that they do not deserve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evatok.evaluation import summary
from evatok.metrics import catalogue
from evatok.metrics.features import description, extract
from evatok.metrics.frechet import frechet_distance_of_features
from evatok.metrics.image_features import load_image_features
from evatok.metrics.kernel_distance import kernel_distance
from evatok.weights import WeightsError, efficientnet
from tests.factories import published_efficientnet


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(efficientnet, "load", published_efficientnet)
    return load_image_features()


def test_every_frame_has_a_row_of_its_own(network):
    clips = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = extract(network, clips)
    assert rows.shape == (6, 320)
    frame = extract(network, clips[1:, :, 2:])
    assert np.allclose(rows[5], frame[0], atol=1e-4)
    assert not np.allclose(rows[4], frame[0], atol=1e-4)
    assert description(network)["weights"] == {efficientnet.FILE: efficientnet.SHA256}


def test_weights_that_cannot_be_had_are_an_error_of_weights(monkeypatch):
    def absent():
        raise WeightsError("no network")

    monkeypatch.setattr(efficientnet, "load", absent)
    with pytest.raises(WeightsError, match="efficientnet-lite0:frames: no network"):
        load_image_features()


def test_distances_of_images_are_frechet_and_kernel_under_their_own_names():
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(40, 4)), random.normal(0.5, 1, size=(40, 4))
    arrays = {"features.efficientnet": fake}
    names = ("rfd_efficientnet", "gfd_efficientnet", "rkd_efficientnet", "gkd_efficientnet")
    found = summary.distribution_values(arrays, {"efficientnet": real}, names)
    frechet, kernel = frechet_distance_of_features(real, fake, ddof=1), kernel_distance(real, fake)
    assert [found[name].value for name in names] == pytest.approx([frechet, frechet, kernel, kernel])
    assert all("fid" not in f"{name} {catalogue.of(name).label}".lower() for name in names)
