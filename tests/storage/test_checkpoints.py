"""A checkpoint comes back as it went, or not at all."""

import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from evatok.storage import checkpoints
from evatok.storage.checkpoints import CheckpointError
from evatok.tokenizers.evatok import AdaptiveTokenizer, TokenizerConfig

KINDS = {"vq": 64, "fsq": 240, "simvq": 64, "lfq": 64}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "proxy.safetensors"


def save(path, tokenizer, **keywords) -> str:
    return checkpoints.save(path, tokenizer, kind="tokenizer", config=tokenizer.config.to_dict(), **keywords)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_of_every_quantisers_tokenizer(kind, tiny, path, clips):
    config = dataclasses.replace(tiny, quantiser=kind, codebook_size=KINDS[kind])
    tokenizer, lengths = AdaptiveTokenizer(config).eval(), torch.tensor([[2, 4, 8]] * 4)
    sha256 = save(path, tokenizer, parents={"train_clips": "abc"}, facts={"steps": 3})
    found = checkpoints.load(path, "tokenizer")
    assert found.sha256 == sha256
    assert (found.parents, found.facts) == ({"train_clips": "abc"}, {"steps": 3})
    again = AdaptiveTokenizer(TokenizerConfig.from_dict(found.config)).eval()
    found.fill(again)
    assert again.config == config
    assert torch.equal(again(clips, lengths).clips, tokenizer(clips, lengths).clips)
    assert [p.name for p in path.parent.iterdir()] == ["proxy.safetensors"]


def test_half_precision_on_disk_becomes_the_modules_own_again(tokenizer, path):
    weight = tokenizer.decoder.unpatchify.weight.clone()
    save(path, tokenizer, dtype=torch.float16)
    found = checkpoints.load(path, "tokenizer")
    assert found.weights["decoder.unpatchify.weight"].dtype == torch.float16
    found.fill(tokenizer)
    assert tokenizer.decoder.unpatchify.weight.dtype == torch.float32
    assert torch.equal(tokenizer.decoder.unpatchify.weight, weight.half().float())


def test_the_hash_covers_header_and_weights(tmp_path, tokenizer):
    one = save(tmp_path / "one.safetensors", tokenizer)
    assert save(tmp_path / "same.safetensors", tokenizer) == one
    facts = save(tmp_path / "facts.safetensors", tokenizer, facts={"steps": 7})
    with torch.no_grad():
        tokenizer.decoder.unpatchify.bias[0] += 1e-3
    weights = save(tmp_path / "weights.safetensors", tokenizer)
    assert len({one, facts, weights}) == 3


def test_saving_replaces_in_one_step(tokenizer, path):
    save(path, tokenizer)
    first = path.read_bytes()
    with pytest.raises(TypeError):  # a header that is no JSON: nothing of the old file is touched
        save(path, tokenizer, facts={"steps": object()})
    assert path.read_bytes() == first


def test_an_absent_checkpoint_is_named(path):
    with pytest.raises(CheckpointError, match=r"proxy\.safetensors: no such checkpoint"):
        checkpoints.load(path, "tokenizer")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tokenizer, path, share):
    save(path, tokenizer)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"not a complete evatok checkpoint .*; fetch or train it again"):
        checkpoints.load(path, "tokenizer")


@pytest.mark.parametrize("place", [0.2, 0.5, 1.0])
def test_one_flipped_byte_among_the_weights_is_noticed(tokenizer, path, place):
    save(path, tokenizer)
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + int(place * (len(content) - header - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match the checkpoint's sha256; fetch or train it again"):
        checkpoints.load(path, "tokenizer")


@pytest.mark.parametrize("header", [None, "not json", "[]", "{}", json.dumps({"kind": "tokenizer", "config": {}})])
def test_a_safetensors_file_of_other_making_is_refused(path, header):
    path.parent.mkdir()
    save_file({"weight": torch.zeros(2)}, path, metadata=None if header is None else {"evatok": header})
    with pytest.raises(CheckpointError, match="not a complete evatok checkpoint"):
        checkpoints.load(path, "tokenizer")


def test_another_kind_is_refused_by_name(tokenizer, path):
    save(path, tokenizer)
    with pytest.raises(CheckpointError, match="of kind 'tokenizer' where 'router' is expected"):
        checkpoints.load(path, "router")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [({"encoder_layers": 3}, r"encoder\.layers\.2"), ({"decoder_width": 16}, r"quantiser\.project_out")],
)
def test_another_size_is_refused_and_leaves_the_module_alone(tokenizer, tiny, path, change, culprit):
    save(path, tokenizer)
    other = AdaptiveTokenizer(dataclasses.replace(tiny, **change))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"another network: {culprit}.* does not fit"):
        checkpoints.load(path, "tokenizer").fill(other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tokenizer, path, value, monkeypatch):
    tokenizer.decoder.unpatchify.bias[0] = value
    with pytest.raises(CheckpointError, match=r"is not written: its weight decoder\.unpatchify\.bias holds NaN"):
        save(path, tokenizer)
    assert not path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_refuse_non_finite", lambda *_: None)
        save(path, tokenizer)
    with pytest.raises(CheckpointError, match=r"is not used: its weight decoder\.unpatchify\.bias"):
        checkpoints.load(path, "tokenizer")


def test_weights_that_a_lower_precision_cannot_hold_are_not_saved(tokenizer, path):
    tokenizer.decoder.unpatchify.bias[0] = 1e6
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        checkpoints.save(path, tokenizer, kind="tokenizer", config={}, dtype=torch.float16)


def test_a_folder_and_a_pipe_are_no_checkpoints(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(CheckpointError, match="not a regular file; name the"):
            checkpoints.load(tmp_path / name, "tokenizer")
