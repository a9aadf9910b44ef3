"""Images: the tokenizer of one block with convolutions on both sides keeps the promises of the linear one."""

import dataclasses

import numpy as np
import pytest
import torch

from evatok.models.convolutions import ConvolutionShape, ImageDecoder, ImageEncoder
from evatok.storage import checkpoints
from evatok.tokenizers.config import patchify, unpatchify
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig
from evatok.tokenizers.incremental import BlockwiseTokenizer, Prefix
from evatok.tokenizers.initialise import initialise
from tests.factories import TINY_IMAGE

LENGTHS = torch.tensor([[2], [8], [4], [6]])
FRONTS = ("cnn", "linear")


def of_front(front: str) -> AdaptiveTokenizer:
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(dataclasses.replace(TINY_IMAGE, front=front))
    initialise(tokenizer, torch.rand(64, 3, 1, 16, 16))
    return tokenizer.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("front", FRONTS)
def test_decoding_the_codes_is_the_reconstruction(front, images):
    tokenizer = of_front(front)
    with torch.no_grad():
        made = tokenizer(images, LENGTHS, groups=2)
    codes = tokenizer.encode(images, LENGTHS)
    assert made.clips.shape == images.shape
    assert made.clips.dtype == torch.float32
    assert torch.equal(codes.codes, made.codes.codes)
    assert torch.allclose(tokenizer.decode(codes), made.clips.clamp(0, 1), atol=1e-5)
    assert not torch.allclose(made.clips[0], made.clips[1], atol=1e-2)


@pytest.mark.parametrize("front", FRONTS)
@torch.no_grad()
def test_other_images_and_their_lengths_change_nothing(front, images):
    tokenizer, others = of_front(front), images.clone()
    others[1:] = 1 - others[1:]
    one = tokenizer(images, LENGTHS)
    other = tokenizer(others, torch.tensor([[2], [2], [8], [8]]))
    alone = tokenizer(images[:1], LENGTHS[:1])
    for made in (other, alone):
        assert torch.equal(made.codes.codes[0, :2], one.codes.codes[0, :2])
        assert torch.allclose(made.clips[0], one.clips[0], atol=1e-5)


@torch.no_grad()
def test_search_scores_what_the_tokenizer_makes(images):
    tokenizer = of_front("cnn")
    session = BlockwiseTokenizer(tokenizer, images)
    for tokens in TINY_IMAGE.levels:
        pixels, _ = session.code_block(0, tokens, Prefix())
        assert torch.allclose(pixels, tokenizer(images, torch.full((4, 1), tokens)).clips, atol=1e-5)


def test_a_step_of_training_reaches_every_part(images):
    tokenizer = of_front("cnn").train()
    made = tokenizer(images, LENGTHS, tap=1)
    assert made.tapped.shape == (4, 1, 4, TINY_IMAGE.decoder_width)
    (made.clips - images).abs().mean().backward()
    unmoved = [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unmoved == []
    assert tokenizer.decoder.last_layer.grad.abs().sum() > 0


def test_direct_reconstruction_trains_the_convolutions_alone(images):
    tokenizer = of_front("cnn").train()
    (tokenizer.direct(images) - images).square().mean().backward()
    moved = {name.partition(".")[0] for name, p in tokenizer.named_parameters() if p.grad is not None}
    layers = [name for name, p in tokenizer.named_parameters() if "layers" in name and p.grad is not None]
    assert moved == {"encoder", "decoder"}
    assert layers == []
    with pytest.raises(ValueError, match="front linear has no convolutions"):
        of_front("linear").direct(images)


def test_a_shortcut_begins_as_the_linear_front_and_the_convolutions_learn_from_the_first_step(images):
    torch.manual_seed(0)
    tokenizer = AdaptiveTokenizer(dataclasses.replace(TINY_IMAGE, shortcut=True))
    initialise(tokenizer, torch.rand(64, 3, 1, 16, 16))
    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    linear = encoder.image_embedding.linear(patchify(images, TINY_IMAGE) - 0.5) + encoder.patch_position
    assert torch.allclose(encoder.embed(images), linear, atol=1e-6)
    features = torch.randn(2, 1, 4, TINY_IMAGE.decoder_width)
    pixels = unpatchify(decoder.image_rendering.linear(features) + 0.5, TINY_IMAGE)
    assert torch.allclose(decoder.to_pixels(features), pixels, atol=1e-6)
    (tokenizer(images, LENGTHS).clips - images).square().mean().backward()
    assert encoder.image_embedding.project.weight.grad.abs().sum() > 0
    assert decoder.last_layer.grad.abs().sum() > 0


def test_the_convolutions_halve_and_double_sides():
    shape = ConvolutionShape(channels=8, multipliers=(1, 2, 4), blocks=1, map_channels=6)
    made = ImageEncoder(shape)(torch.zeros(2, 3, 32, 24))
    assert shape.stride == 4
    assert made.shape == (2, 6, 8, 6)
    assert ImageDecoder(shape)(made).shape == (2, 3, 32, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 4}, "codes images of 1 frame, not clips of 4"),
        ({"multipliers": (1, 2)}, r"make patches \(1, 2, 2\), not \(1, 8, 8\)"),
        ({"channels": 10}, "cannot be normalised in groups"),
        ({"front": "linear", "shortcut": True}, "a shortcut passes the convolutions of front cnn, front linear"),
        ({"front": "conv"}, "unknown front 'conv'; choose one of linear, cnn"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY_IMAGE, **change)


def test_videos_are_refused(images):
    with pytest.raises(ValueError, match=r"clips must be \(B, 3, 1, 16, 16\), got \(4, 3, 4, 16, 16\)"):
        of_front("cnn").encode(images.expand(-1, -1, 4, -1, -1), LENGTHS)


def test_checkpoints_keep_the_front_and_those_from_before_have_the_linear_one(tmp_path, images):
    tokenizer, path = of_front("cnn"), tmp_path / "image.safetensors"
    checkpoints.save(path, tokenizer, kind="tokenizer", config=TINY_IMAGE.to_dict(), parents={}, facts={})
    found = AdaptiveTokenizer.load(path)
    assert found.config == TINY_IMAGE
    assert np.allclose(found.decode(found.encode(images, LENGTHS)), tokenizer.decode(tokenizer.encode(images, LENGTHS)))
    before = {"levels": [2, 4], "frames": 4, "size": 16, "patch": [4, 8, 8]}
    assert TokenizerConfig.from_dict(before).front == "linear"
