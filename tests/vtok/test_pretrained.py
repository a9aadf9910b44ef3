"""A pretrained language model as VTok's, on a tiny random one: what learns, how options weigh, what is refused."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evatok.vtok import pretrained
from evatok.vtok.features import Features
from evatok.vtok.pretrained import PretrainedError, PretrainedReader
from evatok.vtok.strategies import Strategy

C = 6
WORDS = ["Question:", "Answer:", "how", "many", "objects", "one", "two", "three", "left", "becomes", "solid"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A LlamaForCausalLM of two layers, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("llama")
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["?", *WORDS])}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(place)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, initializer_range=0.5, **shape)).save_pretrained(place)
    return place


@pytest.fixture
def held(folder):
    return pretrained.load(folder)


def features(clips: int = 2) -> Features:
    drawn = torch.Generator().manual_seed(0)
    return Features(*(torch.randn(clips, *shape, C, generator=drawn) for shape in ((8, 8), (31, 4, 4))))


def reader(held, **settings) -> PretrainedReader:
    torch.manual_seed(0)
    return PretrainedReader(held, Strategy("vtok", key=4), C, **settings)


def test_only_the_projector_learns_unless_asked_otherwise(held):
    before = copy.deepcopy(dict(held.model.state_dict()))
    model = reader(held)
    assert not any(name.startswith("language") for name in model.state_dict())
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(features(), ["how many objects ?"] * 2, ["one", "two"])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert model.answer(features(), ["how many objects ?"] * 2, ["one", "two", "three"]) == ["one", "two"]
    assert all(torch.equal(value, before[name]) for name, value in held.model.state_dict().items())
    assert copy.deepcopy(model).held is model.held, "an average of the projector copies no language model"


def test_its_own_weights_learn_when_asked(folder):
    model = reader(pretrained.load(folder), further=True)
    model.loss(features(), ["how many objects ?"] * 2, ["one", "two"]).backward()
    assert all(p.grad is not None for p in model.language.model.layers[0].parameters())


@torch.no_grad()
def test_a_question_s_answer_does_not_depend_on_longer_ones_beside_it(held):
    model = reader(held)
    start, there = model.prefix(features().take(np.array([0])), ["how many objects ?"])
    alone = model._likelihood(start, there, [held.numbers(" becomes solid")])
    start, there = model.prefix(features(2), ["how many objects ?", "how many objects ? one two three ?"])
    beside = model._likelihood(start, there, [held.numbers(" becomes solid"), held.numbers(" left")])
    assert beside[0].item() == pytest.approx(alone[0].item(), abs=1e-4)
    start, there = model.prefix(features().take(np.array([0])), ["how many objects ?"])
    first = model._likelihood(start, there, [held.numbers(" becomes")])
    assert alone[0] < first[0] < 0, "the likelihood of two tokens is the product of both"


def test_a_file_read_as_quantised_becomes_a_folder_that_loads(folder, tmp_path, monkeypatch):
    """As Hugging Face reads GGUF: whole weights that carry the mark of a format it cannot write."""
    import transformers

    kinds = {"AutoTokenizer": transformers.AutoTokenizer, "AutoModelForCausalLM": transformers.AutoModelForCausalLM}
    read = {name: kind.from_pretrained(folder) for name, kind in kinds.items()}
    read["AutoModelForCausalLM"].hf_quantizer = SimpleNamespace(
        quantization_config=SimpleNamespace(quant_method="gguf")
    )
    for name, found in read.items():
        monkeypatch.setattr(kinds[name], "from_pretrained", lambda *_, found=found, **__: found)
    (tmp_path / "model.gguf").touch()
    pretrained.convert(tmp_path / "model.gguf", tmp_path / "out")
    monkeypatch.undo()
    one, other = (pretrained.load(place).model.state_dict() for place in (folder, tmp_path / "out"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_folders_that_hold_no_such_model_are_told(folder, tmp_path):
    with pytest.raises(PretrainedError, match=r"no config\.json"):
        pretrained.load(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(PretrainedError, match="without weights"):
        pretrained.load(bare)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    told = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**told, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(PretrainedError, match="instead of LlamaForCausalLM"):
        pretrained.load(other)
    (other / "config.json").write_text(json.dumps(told))
    (other / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(PretrainedError, match="cannot be loaded"):
        pretrained.load(other)
    with pytest.raises(PretrainedError, match="no such file"):
        pretrained.convert(tmp_path / "model.gguf", tmp_path / "out")


def test_a_tokenizer_of_another_vocabulary_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    told = json.loads((other / "tokenizer.json").read_text())
    told["model"]["vocab"] |= {f"word{number}": 100 + number for number in range(40)}
    (other / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(PretrainedError, match="another's"):
        pretrained.load(other)


@pytest.mark.slow
def test_a_projector_is_taught_measured_and_resumed(folder, tmp_path, runs, monkeypatch):
    from evatok.data.embedded import moving_shapes
    from evatok.experiments import vtok_pretrained
    from evatok.storage import checkpoints
    from evatok.vtok.image_encoder import ImageEncoder, ImageEncoderConfig

    monkeypatch.setenv("EVATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(moving_shapes, "REEL", 10)
    encoder = tmp_path / "encoder.safetensors"
    shape = ImageEncoderConfig(64, 8, 8)
    checkpoints.save(encoder, ImageEncoder(shape), kind="image_encoder", config=shape.to_dict())

    def taught(name: str, **changes) -> dict:
        sizes = {"train_clips": 10, "limit": 10, "steps": 4, "batch": 4, "warmup": 1, "log_every": 2, "save_every": 2}
        places = {"work": str(tmp_path / name), "checkpoint": str(tmp_path / f"{name}.safetensors"), "per_clip": ""}
        given = {**sizes, **places, "records_folder": str(tmp_path / "records"), "encoder": str(encoder), "threads": 1}
        return vtok_pretrained.ex.run(config_updates={**given, "language": str(folder), **changes}).result

    whole = taught("whole")
    assert whole["tokens"] == 46
    assert 0 <= whole["accuracy"] <= 100
    assert taught("sliced", minutes=1e-9)["complete"] is False
    taught("sliced")
    one, other = (checkpoints.load(tmp_path / f"{name}.safetensors") for name in ("whole", "sliced"))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert taught("swap", strategy="frames")["tokens"] == 64
