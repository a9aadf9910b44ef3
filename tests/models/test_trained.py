"""One `load` for every kind of checkpoint: frozen, in eval mode, with its header, and of no other kind."""

from pathlib import Path

import pytest
import torch
from torch import nn

import evatok
from evatok.storage import checkpoints
from evatok.storage.checkpoints import CheckpointError
from tests import factories


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every kind that is known, by kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    places = {kind: folder / f"{kind}.safetensors" for kind in evatok._KINDS}
    its = factories.saved_tokenizer(places["tokenizer"], factories.TINY)
    factories.saved_router(places["router"])
    factories.saved_generator(places["generator"], its, classes=("left", "right"))
    factories.saved_classifier(places["classifier"], ("left", "right"), 8, 16)
    factories.saved_image_encoder(places["image_encoder"])
    factories.saved_language_model(places["video_language_model"])
    factories.saved_videoflextok(places["videoflextok"])
    return places


@pytest.mark.parametrize("kind", evatok._KINDS)
def test_every_kind_is_loaded_frozen_with_its_header_and_its_own_weights(one_of_each, kind):
    path = one_of_each[kind]
    model, checkpoint = evatok.load(str(path)), checkpoints.load(path)
    assert (model.checkpoint.sha256, model.checkpoint.facts) == (checkpoint.sha256, checkpoint.facts)
    network = model if isinstance(model, nn.Module) else model.module
    assert not any(part.training for part in network.modules())
    assert not any(value.requires_grad for value in network.parameters())
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", evatok._KINDS)
def test_the_class_of_one_kind_names_what_it_found_instead(one_of_each, kind):
    mine = type(evatok.load(one_of_each[kind]))
    for other, path in one_of_each.items():
        if other != kind:
            with pytest.raises(CheckpointError, match=f"{path}: .*kind '{other}' where .*'{kind}'"):
                mine.load(path)


def test_a_kind_that_nobody_knows_is_refused_with_those_that_are_known(tmp_path, tokenizer):
    path = tmp_path / "odd.safetensors"
    checkpoints.save(path, tokenizer, kind="pet", config={})
    with pytest.raises(CheckpointError, match="kind 'pet'; known are classifier, generator"):
        evatok.load(path)


def test_a_trained_network_is_on_the_device_that_was_asked_for(one_of_each):
    for path in one_of_each.values():
        model = evatok.load(path, "meta")
        network = model if isinstance(model, nn.Module) else model.module
        assert {value.device.type for value in network.parameters()} == {"meta"}
