"""A public image encoder as VTok's: the layer that LLaVA reads, pooled to cells, at the encoder's own size."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from evatok.data.clips import ClipSet
from evatok.storage.shards import ShardStore
from evatok.vtok.features import features_of, pooled
from evatok.vtok.image_encoder import ImageEncoder, ImageEncoderError
from evatok.vtok.public_encoder import encoder_of
from tests.factories import saved_image_encoder

SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A CLIP's image half with 16 x 16 patches of 4 pixels."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("clip")
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(image_size=64, patch_size=4, **SMALL)).save_pretrained(
        place
    )
    return place


def test_features_are_those_of_the_last_layer_but_one_in_8_x_8_cells(folder):
    encoder, frames = encoder_of(folder), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = transformers.CLIPVisionModel.from_pretrained(folder)
    with torch.no_grad():
        given = (frames - MEAN.view(3, 1, 1)) / DEVIATION.view(3, 1, 1)
        tokens = model(given, output_hidden_states=True).hidden_states[-2][:, 1:]
    expected = pooled(tokens.unflatten(1, (16, 16)), 8)
    torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-5)
    assert encoder.width == 24


def test_smaller_frames_are_resized_and_their_features_kept_under_the_encoders_name(folder, tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    encoder = encoder_of(str(folder))
    found = features_of(encoder, ClipSet(clips, None, {"name": "some"}), store=ShardStore(tmp_path / "store"))
    assert (found.first.shape, found.frames.shape) == ((2, 8, 8, 24), (2, 3, 4, 4, 24))
    assert encoder.identity.endswith("-2"), "another layer would be another encoder"


def test_what_reads_clips_is_refused_and_a_checkpoint_is_still_one_of_ours(tmp_path):
    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "num_frames": 4, **SMALL}
    transformers.VideoMAEModel(transformers.VideoMAEConfig(**shape)).save_pretrained(tmp_path / "videomae")
    with pytest.raises(ImageEncoderError, match="VideoMAE is no image encoder of two layers or more"):
        encoder_of(tmp_path / "videomae")
    own = encoder_of(saved_image_encoder(tmp_path / "encoder.safetensors"))
    assert isinstance(own, ImageEncoder)
    assert own.identity == own.checkpoint.sha256
