"""Linear probes: they find what can be read off features, and a frequent label does not help them."""

import numpy as np
import pytest
import torch

from evatok.metrics.probe import balanced_accuracy, ridge_probe


def test_a_ridge_probe_reads_a_linear_label_and_nothing_off_noise():
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.normal(size=(600, 10)))
    linear = np.array(["left", "right"])[(features[:, 3] + features[:, 7] > 0).long().numpy()]
    assert told(features, linear) > 0.9
    assert told(features, random.choice(["a", "b", "c", "d"], 600)) < 0.4


def test_a_ridge_probe_does_not_pass_by_naming_the_most_frequent_label():
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.normal(size=(600, 10)))
    rare = np.where(features[:, 3] > 1.3, "rare", "common")
    assert 0.05 < np.mean(rare == "rare") < 0.15
    assert told(features, rare) > 0.85
    assert told(torch.zeros(600, 10), rare) == 0.5


def test_a_ridge_probe_survives_more_features_than_clips_and_constant_ones():
    features = torch.cat((torch.eye(6).repeat(2, 1), torch.ones(12, 30)), 1)
    labels = np.tile(list("abcdef"), 2)
    assert (ridge_probe(features, labels, features) == labels).all()


def test_balanced_accuracy_weighs_every_label_the_same():
    asked = np.array(["a"] * 9 + ["b"])
    assert balanced_accuracy(np.array(["a"] * 10), asked).value == 0.5
    assert balanced_accuracy(asked, asked).value == 1
    half = balanced_accuracy(np.tile(["a", "b"], 50), np.repeat("a", 100))
    assert half.spread == pytest.approx(1.96 * 0.05)


def told(features: torch.Tensor, labels: np.ndarray) -> float:
    """Balanced accuracy on the last third of a probe fitted to the rest."""
    return balanced_accuracy(ridge_probe(features[:400], labels[:400], features[400:]), labels[400:]).value
