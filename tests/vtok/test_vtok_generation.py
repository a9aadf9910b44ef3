"""The chain of VTok's generation at the smallest size: decoder, writer, samples judged; kills and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evatok.data.embedded import moving_shapes
from evatok.experiments import train_image_encoder, vtok_align, vtok_decoder, vtok_generation
from evatok.experiments.tracking import ConfigError
from evatok.storage import checkpoints, records
from evatok.vtok.language_model import LanguageModelConfig, VideoLanguageModel
from evatok.vtok.strategies import Strategy

SHORT = {"warmup": 2, "log_every": 2, "save_every": 2, "ema": 0.8, "threads": 1, "steps": 4, "batch": 8}
DECODER = {"width": 16, "layers": 1, "heads": 2, "latents_kept": 8, "validation_clips": 10, "train_clips": 20}
WRITER = {"width": 16, "layers": 1, "heads": 2, "train_clips": 20, "test_clips": 10, "start": ""}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def made(cache, runs, monkeypatch) -> dict[str, str]:
    """Where encoder and decoder lie; made once."""
    monkeypatch.setenv("EVATOK_CACHE", str(cache))
    monkeypatch.setattr(moving_shapes, "REEL", 10)
    encoder, decoder = (str(cache / f"{name}.safetensors") for name in ("encoder", "decoder"))
    places = {"records_folder": str(cache / "records")}
    if not Path(decoder).exists():
        sizes = {"train_clips": 20, "validation_clips": 10, "width": 16, "channels": 8}
        given = {**SHORT, **places, **sizes, "work": str(cache / "encoder"), "checkpoint": encoder}
        train_image_encoder.ex.run(config_updates=given)
        given = {**SHORT, **places, **DECODER, "encoder": encoder, "work": str(cache / "decoder")}
        vtok_decoder.ex.run(config_updates={**given, "measured_steps": [2], "checkpoint": decoder})
    return {"encoder": encoder, "decoder": decoder}


@pytest.fixture
def teach(made, tmp_path):
    """Teaches a writer: (name, **changes) -> the result."""

    def run(name: str, **changes) -> dict:
        places = {"work": str(tmp_path / name), "checkpoint": str(tmp_path / name / "writer.safetensors")}
        kept = {"records_folder": str(tmp_path / "records")}
        return vtok_generation.ex.run(config_updates={**SHORT, **WRITER, **made, **places, **kept, **changes}).result

    return run


@pytest.fixture
def judge(made, tmp_path):
    """Makes and judges samples: (**changes) -> the record."""

    def run(**changes) -> records.Record:
        sizes = {"limit": 10, "flow_steps": 2, "threads": 1, "per_clip": "", "writer": "", **made}
        places = {"work": str(tmp_path / "align"), "records_folder": str(tmp_path / "records")}
        result = vtok_align.ex.run(config_updates={**sizes, **places, **changes}).result
        record = records.read(tmp_path / "records" / f"{result['record']}.json")
        record.config["resumed"] = result["resumed"]
        return record

    return run


@pytest.fixture
def reader(made, tmp_path) -> str:
    """An untrained model of the strategy key, as training saves it."""
    config, path = LanguageModelConfig(16, 16, 1, 2), tmp_path / "reader.safetensors"
    model = VideoLanguageModel(config, Strategy("key"))
    shape = {"model": config.to_dict(), "strategy": model.strategy.to_dict()}
    parents = {"image_encoder": checkpoints.load(Path(made["encoder"])).sha256}
    facts = {"vocabulary": list(model.words)}
    checkpoints.save(path, model, kind=VideoLanguageModel.KIND, config=shape, parents=parents, facts=facts)
    return str(path)


@pytest.mark.slow
def test_a_writer_starts_from_its_own_strategy_and_says_what_starts_fresh(teach, reader):
    with pytest.raises(ConfigError, match="trained with the strategy key16, not"):
        teach("odd", start=reader)
    taught = teach("key", strategy="key", start=reader)
    facts = checkpoints.load(Path(taught["checkpoint"])).facts
    assert (facts["fresh"], facts["batch"]) == ([], 8)
    assert "embedding.weight" in checkpoints.load(Path(teach("new", key=1)["checkpoint"])).facts["fresh"]


@pytest.mark.slow
def test_a_second_judge_is_measured_on_real_clips_too(judge, reader):
    found = judge(second_judge=reader).metrics
    assert 0 <= found["second_accuracy"].value <= 100
    assert found["second_accuracy"].n == found["accuracy"].n


@pytest.mark.slow
def test_shares_of_conditions_leave_some_for_both(made):
    shares = {"null": 0.5, "captions_only": 0.5, "tokens_only": 0.5}
    with pytest.raises(ConfigError, match=r"null, captions_only, tokens_only: they add up to 1\.5"):
        vtok_decoder.ex.run(config_updates={**SHORT, **DECODER, "encoder": made["encoder"], **shares})


@pytest.mark.slow
def test_what_a_writer_writes_is_drawn_judged_and_recorded(teach, judge, made, tmp_path):
    before = checkpoints.load(Path(made["decoder"]), "vtok_decoder").sha256
    taught = teach("writer", key=1)
    assert 0 < taught["bits_per_code"] < 12
    record = judge(writer=taught["checkpoint"], shown=str(tmp_path / "shown.npz"), show=2)
    assert record.metrics["tokens"].value == 31
    assert record.metrics["accuracy"].n == 10
    assert {"dynamic_degree", "smoothness"} <= record.metrics.keys()
    assert record.model["parents"]["decoder"] == before
    assert record.protocol["deviations"][0] == "limited to 10 clips"
    with np.load(tmp_path / "shown.npz") as shown:
        assert shown["clips"].shape == (2, 31, 64, 64, 3)
    assert judge(writer=taught["checkpoint"]).config["resumed"] == 10, "samples that are drawn are not drawn again"
    assert checkpoints.load(Path(made["decoder"]), "vtok_decoder").sha256 == before, "nothing trains the decoder"


@pytest.mark.slow
def test_captions_alone_and_true_tokens_are_rows_of_the_same_decoder(judge):
    alone, true = judge(), judge(tokens="true", said=False)
    assert (alone.metrics["tokens"].value, true.metrics["tokens"].value) == (0, 46)
    assert alone.model["parents"] == true.model["parents"]
    with pytest.raises(ConfigError, match="nothing says what to show"):
        judge(said=False)


@pytest.mark.slow
def test_a_killed_writer_ends_as_the_unbroken_one_and_may_learn_to_answer_too(teach):
    asked = {"key": 1, "understanding_weight": 1.0}
    whole = teach("whole", **asked)
    assert "accuracy" in whole
    assert teach("sliced", minutes=1e-9, **asked)["complete"] is False
    finished = teach("sliced", **asked)
    one, other = (checkpoints.load(Path(found["checkpoint"]), "vtok_writer") for found in (whole, finished))
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.mark.slow
def test_what_belongs_to_other_networks_is_refused(teach, judge, made, cache, tmp_path):
    with pytest.raises(ConfigError, match="none has no tokens to write"):
        teach("none", strategy="none")
    with pytest.raises(ConfigError, match="build clips of 61 frames"):
        teach("fast", fps=12)
    with pytest.raises(ConfigError, match="embedded-reconstruction asks nothing"):
        judge(protocol="embedded-reconstruction")
    taught = teach("writer", key=1)
    other = checkpoints.load(Path(made["decoder"]))
    again = tmp_path / "other.safetensors"
    from evatok.vtok.video_decoder import VideoDecoder

    held = VideoDecoder.load(made["decoder"])
    told = {"parents": {**other.parents, "train_clips": "others"}, "facts": other.facts}
    checkpoints.save(again, held, kind="vtok_decoder", config=other.config, **told)
    with pytest.raises(ConfigError, match="the tokens of another decoder's coder"):
        judge(writer=taught["checkpoint"], decoder=str(again))
    checkpoints.save(again, held, kind="vtok_decoder", config=other.config, facts=other.facts)
    with pytest.raises(ConfigError, match="another image encoder"):
        teach("odd", decoder=str(again))
