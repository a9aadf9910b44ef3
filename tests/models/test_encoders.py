"""Frozen encoders: one shape of answer for every family, the numbers transformers gives, and errors that name a way."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from evatok.models.encoders import EncoderError, FrozenEncoder, depth_of, load_encoder
from evatok.storage import checksums
from evatok.storage.files import sha256_file

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def vjepa2(crop: int) -> transformers.VJEPA2Model:
    """Width 24, 2 layers, patches of 16 x 16 x 2, made for clips of `crop` x `crop`; the same weights for any."""
    torch.manual_seed(0)
    predictor = {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    shape = transformers.VJEPA2Config(crop_size=crop, frames_per_clip=16, **SMALL, **predictor)
    return transformers.VJEPA2Model(shape)


def videomae(pooling: bool = False) -> transformers.VideoMAEModel:
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 8, "num_frames": 8, "intermediate_size": 48}
    return transformers.VideoMAEModel(transformers.VideoMAEConfig(**shape, **SMALL, use_mean_pooling=pooling))


def dinov2() -> transformers.Dinov2Model:
    torch.manual_seed(0)
    return transformers.Dinov2Model(transformers.Dinov2Config(image_size=28, patch_size=14, **SMALL))


def dinov3() -> transformers.DINOv3ViTModel:
    torch.manual_seed(0)
    shape = {"intermediate_size": 48, "num_register_tokens": 3, "image_size": 32}
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**shape, **SMALL))


CLIP_SHAPE = {"image_size": 32, "patch_size": 8, "intermediate_size": 48, **SMALL}


def clip() -> transformers.CLIPVisionModel:
    torch.manual_seed(0)
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**CLIP_SHAPE))


MAKERS: dict[str, Callable] = {
    "videomae": videomae,
    "vjepa2": lambda: vjepa2(32),
    "dinov2": dinov2,
    "dinov3": dinov3,
    "clip": clip,
}
# family: frames and size of clips it takes, and the grid of their features
SHAPES = {
    "videomae": (8, 32, (4, 4, 4)),
    "vjepa2": (8, 32, (4, 2, 2)),
    "dinov2": (2, 28, (2, 2, 2)),
    "dinov3": (2, 32, (2, 2, 2)),
    "clip": (2, 32, (2, 4, 4)),
}
IMAGES = ("clip", "dinov2", "dinov3")
FAMILIES = sorted(MAKERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of random weights a family."""
    base = tmp_path_factory.mktemp("encoders")
    for family, make in MAKERS.items():
        make().save_pretrained(base / family)
    return {family: base / family for family in MAKERS}


@pytest.fixture
def encoder(folders) -> Callable[..., FrozenEncoder]:
    return lambda family, **options: load_encoder(str(folders[family]), **options)


@pytest.fixture
def copied(folders, tmp_path) -> Callable[[str], Path]:
    """A folder that a test may spoil."""
    return lambda family: Path(shutil.copytree(folders[family], tmp_path / family))


def some_clips(frames: int, size: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


def standardised(clips: torch.Tensor, family: str = "") -> torch.Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if family == "clip":
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return (clips - mean.view(3, 1, 1, 1)) / deviation.view(3, 1, 1, 1)


# What it answers


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_with_one_grid_a_layer(family, encoder):
    frames, size, grid = SHAPES[family]
    found = encoder(family)
    assert (found.width, found.depth) == (24, 2)
    assert found.grid(frames, size) == grid
    features = found(some_clips(frames, size), [2, 0])
    assert [one.shape for one in features] == [(2, *grid, 24)] * 2
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_clips_and_not_the_weights(family, encoder):
    frames, size, _ = SHAPES[family]
    found, clips = encoder(family), some_clips(frames, size).requires_grad_()
    found(clips, [2])[0].square().sum().backward()
    assert clips.grad.abs().flatten(2).amax(2).gt(0).all()
    assert all(not p.requires_grad and p.grad is None for p in found.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_transformers(family, encoder, folders):
    frames, size, (_, y, x) = SHAPES[family]
    found, clips = encoder(family), some_clips(frames, size)
    model, pixels = MAKERS[family]().eval(), standardised(clips, family).transpose(1, 2)
    with torch.no_grad():
        if family in IMAGES:
            expected = model(pixels.flatten(0, 1), output_hidden_states=True)
        elif family == "vjepa2":
            expected = model(pixels, skip_predictor=True, output_hidden_states=True)
        else:
            expected = model(pixels, output_hidden_states=True)
    layers = found(clips, [0, 1, 2])
    wanted = [*expected.hidden_states[:2], expected.last_hidden_state]
    for one, tokens in zip(layers, wanted, strict=True):
        patches = tokens[:, -y * x :] if family in IMAGES else tokens
        torch.testing.assert_close(one.flatten(0, 3), patches.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_the_image_half_of_a_complete_clip_is_found_in_it(tmp_path):
    torch.manual_seed(0)
    words = {"vocab_size": 20, "max_position_embeddings": 8, "intermediate_size": 48, **SMALL}
    shape = transformers.CLIPConfig(text_config=words, vision_config=CLIP_SHAPE, projection_dim=12)
    whole = transformers.CLIPModel(shape).eval()
    whole.save_pretrained(tmp_path / "whole")
    found, clips = load_encoder(str(tmp_path / "whole")), some_clips(1, 32)
    with torch.no_grad():
        own = whole.vision_model(standardised(clips, "clip")[:, :, 0]).last_hidden_state
    torch.testing.assert_close(found(clips, [2])[0].flatten(1, 3), own[:, 1:], rtol=1e-4, atol=1e-5)
    assert depth_of(tmp_path / "whole") == 2


def test_a_clip_takes_pictures_of_another_size_with_its_positions_between(encoder):
    found, clips = encoder("clip"), some_clips(1, 64)
    assert found.grid(1, 64) == (1, 8, 8)
    with torch.no_grad():
        own = clip().eval()(standardised(clips, "clip")[:, :, 0], interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(found(clips, [2])[0].flatten(1, 3), own[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_videomae_without_a_final_norm_gives_its_last_layer_as_it_is(tmp_path):
    videomae(pooling=True).save_pretrained(tmp_path / "pooled")
    clips = some_clips(8, 32)
    with torch.no_grad():
        expected = videomae(pooling=True).eval()(standardised(clips).transpose(1, 2)).last_hidden_state
    found = load_encoder(str(tmp_path / "pooled"))(clips, [2])[0]
    torch.testing.assert_close(found.flatten(1, 3), expected, rtol=1e-4, atol=1e-5)


def test_vjepa2_makes_512_tokens_of_a_16x128x128_clip(tmp_path):
    """Made for 256 x 256: the smaller clip's tokens lie at their own rows and columns, as in one made for 128."""
    vjepa2(256).save_pretrained(tmp_path / "large")
    found, clips = load_encoder(str(tmp_path / "large")), some_clips(16, 128, 1)
    assert found.grid(16, 128) == (8, 8, 8)
    features = found(clips, [2])[0]
    assert features.shape == (1, 8, 8, 8, 24)
    with torch.no_grad():
        own = vjepa2(128).eval()(standardised(clips).transpose(1, 2), skip_predictor=True).last_hidden_state
        naive = vjepa2(256).eval()(standardised(clips).transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(features.flatten(1, 3), own, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features.flatten(1, 3), naive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", IMAGES)
def test_image_encoders_see_every_frame_on_its_own(family, encoder):
    _, size, _ = SHAPES[family]
    found, clips = encoder(family), some_clips(3, size)
    together = found(clips, [2])[0]
    torch.testing.assert_close(together[:, 1:2], found(clips[:, :, 1:2], [2])[0], rtol=1e-4, atol=1e-5)


def test_resize_feeds_clips_at_the_encoders_size(encoder):
    found = encoder("videomae", resize=32)
    assert found.grid(8, 64) == (4, 4, 4)
    large = some_clips(8, 32).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert found(large, [2])[0].shape == (2, 4, 4, 4, 24)
    flat = torch.full((1, 3, 8, 64, 64), 0.3)
    torch.testing.assert_close(found(flat, [1]), encoder("videomae")(flat[..., :32, :32], [1]), rtol=1e-4, atol=1e-5)


def test_it_stays_frozen_in_evaluation_mode_inside_a_module_that_trains(encoder):
    found = encoder("videomae")
    torch.nn.ModuleList([found]).train()
    assert not any(module.training for module in found.modules())


def test_pixels_are_normalised_as_the_folder_says(copied):
    folder = copied("videomae")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    clips = some_clips(8, 32)
    same = (clips - 0.5) / 0.25 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
    same = same + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
    told = load_encoder(str(folder))(clips, [2])
    (folder / "preprocessor_config.json").unlink()
    torch.testing.assert_close(told, load_encoder(str(folder))(same, [2]), rtol=1e-3, atol=1e-4)


def test_weights_in_half_precision_are_used_in_float32_and_named_by_their_hash(tmp_path):
    videomae().half().save_pretrained(tmp_path / "half")
    found = load_encoder(str(tmp_path / "half"))
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    weights = (tmp_path / "half" / "model.safetensors").read_bytes()
    assert found.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert found.source == str(tmp_path / "half")


def test_the_encoder_of_a_pre_training_model_is_found_in_it(tmp_path):
    torch.manual_seed(0)
    whole = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(
            image_size=32, patch_size=8, num_frames=8, intermediate_size=48, use_mean_pooling=False, **SMALL,
            decoder_hidden_size=12, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        )
    )  # fmt: skip
    whole.save_pretrained(tmp_path / "whole")
    found = load_encoder(str(tmp_path / "whole")).model.state_dict()
    own = whole.videomae.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


# What it refuses


@pytest.mark.parametrize("layers", [[3], [-1], []])
def test_layers_it_does_not_have_are_named(layers, encoder):
    with pytest.raises(EncoderError, match=r"0 \(the embedding\) to 2"):
        encoder("videomae")(some_clips(8, 32), layers)


@pytest.mark.parametrize(
    ("family", "frames", "size", "told"),
    [
        ("videomae", 8, 64, "not 64x64; use resize=32"),
        ("videomae", 16, 32, "for 8 frames, the clips have 16"),
        ("vjepa2", 7, 32, "a multiple of 2 frames, got 7"),
        ("vjepa2", 8, 64, "at most 32x32 pixels; use resize=32"),
        ("vjepa2", 8, 24, "do not tile 24x24; load with resize=16"),
        ("dinov2", 2, 32, "do not tile 32x32; load with resize=28"),
    ],
)
def test_clips_an_encoder_cannot_take_are_refused_with_what_it_takes(family, frames, size, told, encoder):
    with pytest.raises(EncoderError, match=told):
        encoder(family)(some_clips(frames, size), [0])


def test_clips_of_another_layout_are_refused(encoder):
    with pytest.raises(EncoderError, match=r"\(B, 3, T, S, S\), got \(2, 8, 3, 32, 32\)"):
        encoder("videomae")(some_clips(8, 32).transpose(1, 2), [0])


def test_an_absent_folder_is_refused_with_the_way_to_a_toy_one(tmp_path):
    with pytest.raises(EncoderError, match=r"nothing: no such encoder.*pretrain_videomae with toy"):
        load_encoder(str(tmp_path / "nothing"))


def test_a_hub_name_that_cannot_be_had_is_refused(monkeypatch):
    def away(*arguments, **options):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)
    with pytest.raises(
        EncoderError, match=r"some-lab/an-encoder: no such encoder.*not available from the hub: LocalEntry"
    ):
        load_encoder("some-lab/an-encoder")


def test_a_hub_name_is_loaded_from_where_the_hub_put_it(monkeypatch, folders):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(folders["dinov2"]))
    assert load_encoder("some-lab/an-encoder").source == "some-lab/an-encoder"


def test_a_folder_without_weights_is_refused(copied):
    folder = copied("videomae")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"no model\*.safetensors beside config.json"):
        load_encoder(str(folder))


def test_damaged_weights_are_refused(copied):
    folder = copied("videomae")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot read its weights"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_folder_whose_files_are_not_the_ones_written_is_refused(copied, name):
    folder = copied("videomae")
    checksums.write(folder)
    load_encoder(str(folder))
    content = bytearray((folder / name).read_bytes())
    place = -5 if name == "model.safetensors" else content.index(b"1e-12") + 4  # a weight; 1e-12 to 1e-13
    content[place] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(EncoderError, match=f"{name} has changed since it was written"):
        load_encoder(str(folder))
    (folder / name).unlink()
    with pytest.raises(EncoderError, match=rf"{name} is missing|no model\*\.safetensors beside"):
        load_encoder(str(folder))


def test_a_file_of_the_hubs_cache_is_compared_with_its_name(copied, tmp_path):
    """The hub's cache calls large files by their sha256 and links to them."""
    folder = copied("videomae")
    weights = folder / "model.safetensors"
    blob = tmp_path / sha256_file(weights)
    weights.rename(blob)
    weights.symlink_to(blob)
    load_encoder(str(folder))
    content = bytearray(blob.read_bytes())
    content[-5] ^= 1
    blob.write_bytes(content)
    with pytest.raises(EncoderError, match=r"model\.safetensors has changed since it was written"):
        load_encoder(str(folder))


def test_weights_that_are_partly_missing_are_refused(copied):
    folder = copied("videomae")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "layer.1" in name)
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="1 weights are missing"):
        load_encoder(str(folder))


def test_weights_of_another_shape_are_refused(copied):
    folder = copied("videomae")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "intermediate_size": 40}))
    with pytest.raises(EncoderError, match="cannot read its weights"):
        load_encoder(str(folder))


def test_a_vjepa2_without_its_predictor_is_whole(copied):
    folder = copied("vjepa2")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("predictor.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(str(folder)).depth == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"model_type": "bert"}', "model_type 'bert', known ones are videomae, vjepa2, dinov2, dinov3_vit, clip"),
        ("{}", "model_type None"),
        ("{", "config.json is missing or not JSON"),
        ("[]", "config.json is not a JSON object"),
    ],
)
def test_a_config_that_names_no_known_family_is_refused(content, told, copied):
    folder = copied("videomae")
    (folder / "config.json").write_text(content)
    with pytest.raises(EncoderError, match=told):
        load_encoder(str(folder))
