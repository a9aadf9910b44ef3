"""Benchmarks whose data a user brings: what their authors publish is read, put into words, and scored by likelihood."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evatok.alignment.benchmarks import READERS, BenchmarkError, prompt_of, read
from evatok.alignment.benchmarks.__main__ import main
from evatok.alignment.benchmarks.frames import even_frames, video_of
from evatok.alignment.benchmarks.items import Item
from evatok.alignment.benchmarks.scores import accuracies
from evatok.alignment.benchmarks.vision_language import VisionLanguageModel
from evatok.evaluation import protocols
from evatok.storage import records
from tests.factories import grey_video

MVBENCH = {"video": "a.mp4", "question": "Which way?", "candidates": ["Up", "Down", "Left"], "answer": "Down"}
MME = {
    "question_id": "001-1",
    "videoID": "fFjv93ACGo8",
    "duration": "short",
    "question": "What is shown?",
    "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. All."],
    "answer": "C",
}
MMMU = {"id": "dev_Art_1", "question": "Which?", "options": "['x', 'y']", "answer": "B"}
LVBENCH = {
    "key": "Cm73ma6Ibcs",
    "qa": [
        {
            "uid": "7",
            "question": "What year?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
            "answer": "D",
            "question_type": ["key information retrieval", "reasoning"],
        }
    ],
}
LONG = {
    "id": "v_0",
    "video_path": "v.mp4",
    "question": "Where?",
    "candidates": ["here", "there", "nowhere"],
    "correct_choice": 2,
    "duration_group": 60,
    "subtitle_path": "v_en.json",
}
MMVU = {
    "id": "validation_0",
    "video": "https://host/videos/Biology/3.mp4",
    "question_type": "multiple-choice",
    "question": "Which?",
    "choices": {"A": "a cell", "B": "an atom", "C": "", "D": "", "E": ""},
    "answer": "A",
}


def written(path: Path, rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


# What authors publish


def test_each_benchmark_is_read_as_its_authors_publish_it(tmp_path):
    (found,), left_out = read("mvbench", written(tmp_path / "mv" / "moving_direction.json", [MVBENCH]).parent)
    assert (found.group, found.answer, found.video, left_out) == ("moving_direction", 1, "a.mp4", 0)
    pd.DataFrame([MME]).to_parquet(tmp_path / "mme.parquet")
    (found,), _ = read("video-mme-with-subtitles", tmp_path / "mme.parquet")
    assert found.options == ("Apples.", "Candles.", "Berries.", "All.")
    assert (found.answer, found.subtitles, found.group) == (2, "fFjv93ACGo8", "short")
    (found,), _ = read("video-mmmu", written(tmp_path / "Perception.json", [MMMU]))
    assert (found.options, found.answer, found.group) == (("x", "y"), 1, "Perception")
    (found,), _ = read("longvideobench", written(tmp_path / "lvb_val.json", [LONG]))
    assert (found.answer, found.group, found.subtitles) == (2, "60", "v_en")
    (tmp_path / "video_info.meta.jsonl").write_text(json.dumps(LVBENCH) + "\n")
    (found,), _ = read("lvbench", tmp_path / "video_info.meta.jsonl")
    assert (found.question, found.options, found.answer) == ("What year?", ("1636", "1366", "1363", "1633"), 3)
    assert found.group == "key information retrieval + reasoning"
    triple = {"clip": 0, "prompt": "Three oranges", "category": "counting", "question": "How many?", "answer": "three"}
    pd.DataFrame([{**triple, "options": "two | three"}]).to_csv(tmp_path / "triples.csv", index=False)
    (found,), _ = read("vtok-tv-align", tmp_path / "triples.csv")
    assert (found.name, found.video, found.options, found.answer) == ("0/counting", "0", ("two", "three"), 1)


def test_open_questions_are_left_out_and_counted(tmp_path):
    rows = [MMVU, {**MMVU, "id": "validation_1", "question_type": "open-ended", "choices": {}, "answer": "BFS"}]
    (found,), left_out = read("mmvu", written(tmp_path / "validation.json", rows))
    assert (found.options, found.video, found.group, left_out) == (("a cell", "an atom"), "Biology/3.mp4", "Biology", 1)


@pytest.mark.parametrize(
    ("protocol", "row", "told"),
    [
        ("mvbench", {**MVBENCH, "answer": "Sideways"}, "'Sideways' is not among its options: Up, Down"),
        ("mvbench", {"video": "a.mp4"}, "row 0: not as mvbench is published .no field 'candidates'"),
        ("longvideobench", {**LONG, "correct_choice": 3}, "its answer is not among its options"),
        ("video-mmmu", {**MMMU, "answer": "maybe"}, "'maybe' is not a letter"),
        ("mvbench", {**MVBENCH, "candidates": ["Down"]}, "has 1 options"),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_with_their_place(protocol, row, told, tmp_path):
    with pytest.raises(BenchmarkError, match=told):
        read(protocol, written(tmp_path / "rows.json", [row]))


@pytest.mark.parametrize("key", ["question", "answer"])
@pytest.mark.parametrize("value", [None, 3])
@pytest.mark.parametrize(
    ("protocol", "row"),
    [
        ("video-mme-with-subtitles", MME),
        ("video-mmmu", MMMU),
        ("mmvu", MMVU),
        ("mvbench", {**MVBENCH, "candidates": ["None", "3", "Down"]}),
        ("lvbench", LVBENCH["qa"][0]),
        (
            "vtok-tv-align",
            {"clip": 0, "category": "counting", "options": ["None", "3"], "question": "q", "answer": "3"},
        ),
    ],
)
def test_a_question_or_answer_that_is_no_text_is_refused_with_its_field(protocol, row, key, value, tmp_path):
    """Not asked as "None", nor compared with an option that reads like the number."""
    row = {**row, key: value}
    path = written(tmp_path / "rows.json", [{**LVBENCH, "qa": [row]} if protocol == "lvbench" else row])
    with pytest.raises(BenchmarkError, match=f"rows.json, row 0: .*the field '{key}' must be text, not {value}"):
        read(protocol, path)


@pytest.mark.parametrize("option", ["--limit", "--frames"])
@pytest.mark.parametrize("value", ["-3", "0"])
def test_a_number_of_questions_or_frames_below_one_is_refused(option, value, tmp_path, capsys):
    path = written(tmp_path / "moving.json", [MVBENCH])
    with pytest.raises(SystemExit, match="2"):
        main(["mvbench", "--annotations", str(path), "--prompts", str(tmp_path / "asked.csv"), option, value])
    assert f"{option}: must be an integer of at least 1, got '{value}'" in capsys.readouterr().err
    assert not (tmp_path / "asked.csv").exists()


def test_files_that_are_no_annotations_are_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="stands there twice"):
        read("longvideobench", written(tmp_path / "twice.json", [LONG, LONG]))
    with pytest.raises(BenchmarkError, match="a list of objects"):
        read("mvbench", written(tmp_path / "dict.json", {}))
    with pytest.raises(BenchmarkError, match="no annotation file"):
        read("mvbench", tmp_path / "absent.json")
    with pytest.raises(BenchmarkError, match="mvbench"):
        read("moving-shapes-align", tmp_path / "twice.json")


def test_every_reader_has_a_protocol_that_asks_for_accuracy():
    for name in READERS:
        protocol = protocols.get(name)
        assert protocol.metrics == ("accuracy",)
        assert "frames" in protocol.unknown, "VTok does not say how many"


# How it is asked


def test_a_question_is_put_in_the_words_of_its_benchmark(tmp_path):
    (item,), _ = read("video-mme-with-subtitles", written(tmp_path / "mme.json", [MME]))
    (tmp_path / "fFjv93ACGo8.srt").write_text(
        '1\n00:00:01,000 --> 00:00:02,000\n<font color="white">Hello there</font>\n\n2\n'
        "00:00:03,000 --> 00:00:04,000\n3 candles\n"
    )
    text = prompt_of("video-mme-with-subtitles", item, tmp_path)
    assert text.startswith("This video's subtitles are listed below:\nHello there\n3 candles\nSelect the best answer")
    assert "(A, B, C, or D)" in text
    assert text.endswith("What is shown?\nA. Apples.\nB. Candles.\nC. Berries.\nD. All.\nThe best answer is:")
    assert "subtitles" not in prompt_of("video-mme-without-subtitles", item)
    with pytest.raises(BenchmarkError, match="--subtitles FOLDER"):
        prompt_of("video-mme-with-subtitles", item)
    assert "(B) Down\n(C) Left" in prompt_of("mvbench", Item("n", "v", "Which way?", ("Up", "Down", "Left"), 1, "g"))


def test_videos_are_found_with_and_without_suffix_and_in_folders_below(tmp_path):
    for name in ("one.mp4", "deep/two.MKV", "deep/three.mp4", "other/three.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(video: str) -> str:
        return str(video_of(Item("n", video, "q", ("a", "b"), 0, "g"), tmp_path).relative_to(tmp_path))

    assert [found("one"), found("one.mp4"), found("two")] == ["one.mp4", "one.mp4", "deep/two.MKV"]
    with pytest.raises(BenchmarkError, match="2 videos called three"):
        found("three")
    with pytest.raises(BenchmarkError, match="no video called four"):
        found("four")


def test_even_frames_are_first_and_last_and_of_the_asked_seconds(tmp_path):
    path = grey_video(tmp_path / "grey.mp4", frames=20, grey=10, brighter=12)
    every = even_frames(path, 100)
    assert every.shape == (20, 32, 32, 3)
    assert (np.diff(every.mean((1, 2, 3))) > 5).all(), "in order"
    assert np.array_equal(even_frames(path, 3), every[[0, 10, 19]])
    assert np.array_equal(even_frames(path, 2, 0.25, 0.5), every[[5, 10]])
    with pytest.raises(ValueError, match="no frame between 7"):
        even_frames(path, 2, 7.0)


# Who answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A LLaVA-NeXT-Video of two layers a part, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
        PreTrainedTokenizerFast,
    )

    place = tmp_path_factory.mktemp("llava")
    words = ["<unk>", "<video>", "<image>", "USER:", "ASSISTANT:", *"ABCDE", "Which", "way?"]
    table = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"unk_token": "<unk>", "pad_token": "<unk>", "additional_special_tokens": ["<video>", "<image>"]}
    template = (
        "{% for told in messages %}USER: {% for part in told['content'] %}"
        "{% if part['type'] == 'video' %}<video> {% else %}{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
        "{% endfor %}"
    )
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(**size),
        LlavaNextImageProcessor(**size),
        PreTrainedTokenizerFast(tokenizer_object=table, **marks),
        chat_template=template,
        patch_size=7,
        vision_feature_select_strategy="default",
    ).save_pretrained(place)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=7, **shape).to_dict(),
        text_config=LlamaConfig(vocab_size=len(words), initializer_range=0.5, **shape).to_dict(),
        video_token_index=1,
        image_token_index=2,
    )
    LlavaNextVideoForConditionalGeneration(config).save_pretrained(place)
    return place


@pytest.fixture
def model(folder) -> VisionLanguageModel:
    return VisionLanguageModel.load(folder)


def clip(seed: int, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 40, 3), dtype=np.uint8)


def test_letters_are_weighed_by_likelihood_and_the_video_matters(model):
    found = model.likelihoods(clip(0), "Which way? A B", "AB")
    assert found.shape == (2,)
    assert (found < 0).all()
    assert not np.allclose(found, model.likelihoods(clip(1), "Which way? A B", "AB"))
    every = model.likelihoods(clip(0), "Which way? A B", "ABCDE")
    np.testing.assert_allclose(every[:2], found, rtol=1e-5)
    assert model.answer(clip(0), "Which way? A B", "ABCDE") == int(every.argmax())


def test_all_frames_that_were_chosen_are_seen(model):
    """A processor that sampled again would drop the frames between."""
    one, other = clip(0, 5), clip(0, 5)
    other[3] = 255 - other[3]
    assert not np.allclose(*(model.likelihoods(seen, "Which way?", "AB") for seen in (one, other)))


def test_a_folder_that_holds_no_such_model_is_refused(folder, tmp_path):
    with pytest.raises(BenchmarkError, match=r"no config\.json"):
        VisionLanguageModel.load(tmp_path)
    written(tmp_path / "config.json", json.loads((folder / "config.json").read_text()))
    with pytest.raises(BenchmarkError, match="without weights"):
        VisionLanguageModel.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BenchmarkError, match="cannot be loaded"):
        VisionLanguageModel.load(tmp_path)


def test_letters_that_a_tokenizer_cannot_tell_apart_are_refused(model):
    with pytest.raises(BenchmarkError, match="does not tell the letters ABCDEFG apart"):
        model.likelihoods(clip(0), "Which way?", "ABCDEFG")


def test_accuracy_comes_by_group_and_questions_about_one_video_count_together():
    right = np.array([True, True, False, False] * 10)
    found = accuracies(right, ["up", "down"] * 20, [str(number // 2) for number in range(40)])
    assert (found["accuracy"].value, found["accuracy"].n) == (50, 40)
    assert found["accuracy.up"].n == 20
    apart = accuracies(right, ["all"] * 40)
    assert set(apart) == {"accuracy"}
    assert found["accuracy"].spread > 1.2 * apart["accuracy"].spread


def test_the_command_asks_scores_and_leaves_a_record(folder, tmp_path, capsys):
    grey_video(tmp_path / "videos" / "a.mp4", frames=6)
    rows = [MVBENCH, {**MVBENCH, "question": "Which way then?", "answer": "Up"}]
    given = ["mvbench", "--annotations", str(written(tmp_path / "moving.json", rows)), "--frames", "3"]
    assert main([*given, "--prompts", str(tmp_path / "asked.csv")]) == 0
    assert pd.read_csv(tmp_path / "asked.csv")["answer"].tolist() == ["B", "A"]
    places = ["--records", str(tmp_path / "records"), "--per-clip", str(tmp_path / "per_clip")]
    assert main([*given, "--videos", str(tmp_path / "videos"), "--model", str(folder), *places]) == 0
    assert "accuracy" in capsys.readouterr().out
    (path,) = (tmp_path / "records").glob("*.json")
    record = records.read(path)
    assert record.metrics["accuracy"].n == 2
    assert record.protocol["name"] == "mvbench"
    assert not record.protocol["comparable"], "two questions and three frames are not the benchmark"
    with pytest.raises(SystemExit):
        main([*given, "--videos", str(tmp_path), "--model", str(tmp_path), *places])
    assert "no config.json" in capsys.readouterr().err
