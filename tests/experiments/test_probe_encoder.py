"""What a probe of an encoder reads: labels its features hold, and chance where they hold none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.data import clips as clip_sets
from evatok.experiments import probe_encoder
from evatok.experiments.tracking import ConfigError
from evatok.metrics.probe import mean_features
from evatok.models.efficientnet import EfficientNet, EfficientNetLite0
from evatok.storage import records
from tests.factories import TinyEncoder

pytestmark = pytest.mark.usefixtures("runs")


def test_mean_features_are_those_of_each_clip_and_layer_whatever_the_batch(moving_clips):
    pixels, encoder = moving_clips(5, 4, 16), TinyEncoder()
    found = mean_features(encoder, pixels, [1, 3], batch=2)
    clips = torch.from_numpy(pixels).permute(0, 4, 1, 2, 3) / 255
    expected = torch.cat([f.mean((1, 2, 3)) for f in encoder(clips, [1, 3])], 1)
    torch.testing.assert_close(found, expected)


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Runs the experiment on clips that flicker or rest, with an untrained EfficientNet: (**settings) -> result."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (24, 2, 32, 32, 3), dtype=np.uint8)
    order = np.array([[0, 1, 0, 1], [0, 0, 1, 1]])[np.arange(24) % 2]  # the same pictures, in another order
    pixels = np.stack([picture[frames] for picture, frames in zip(pictures, order, strict=True)])
    labels = pd.DataFrame({"motion": ["flickers", "rests"] * 12})
    clip_sets.save(tmp_path / "clips", pixels, labels, {"name": "pictures", "seed": 0})

    def load(source: str, resize: int | None) -> EfficientNet:
        torch.manual_seed(0)
        return EfficientNet(EfficientNetLite0(), source=source, differences=source == "whole", weights_sha256="0" * 64)

    monkeypatch.setattr(probe_encoder, "load_encoder", load)
    shape = type("Shape", (), {"frames": 4, "size": 32})
    monkeypatch.setattr(probe_encoder, "TOKENIZER_SIZES", {"toy": shape})

    def run(**settings):
        places = {"probe_data": str(tmp_path / "clips"), "records_folder": str(tmp_path / "records")}
        given = {**places, "probe_train_clips": 24, "probe_clips": 24, "threads": 1, "encoder_layers": [1], **settings}
        return probe_encoder.ex.run(config_updates=given).result

    return run


def test_an_order_of_pictures_is_read_off_changes_and_not_off_frames(probe, tmp_path):
    whole, frames = probe(encoder="whole"), probe(encoder="frames")
    assert whole["accuracy"] == {"probe_motion": 1.0, "probe_motion_guess": 0.5}
    assert frames["accuracy"]["probe_motion"] < 0.8
    record = records.read(tmp_path / "records" / f"{whole['record']}.json")
    assert record.kind == "probe_encoder"
    assert record.model["layers"] == [1]
    assert record.model["features"] == 2 * 16
    assert record.metrics["probe_motion"].n == 24


def test_a_layer_or_a_label_that_there_is_not_is_refused(probe):
    with pytest.raises(ConfigError, match="encoder_layers: 17 of an encoder of 16 layers"):
        probe(encoder_layers=[17])
    with pytest.raises(ConfigError, match="probe_labels: clip set pictures has no 'game', it has motion"):
        probe(probe_labels=["game"])
