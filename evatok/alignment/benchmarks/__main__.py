"""Run a benchmark of video understanding: `python -m evatok.alignment.benchmarks mvbench --model FOLDER ...`.

    python -m evatok.alignment.benchmarks mvbench --annotations json/ --videos video/ --model Qwen2.5-VL-7B-Instruct
    python -m evatok.alignment.benchmarks video-mme-with-subtitles --subtitles subtitle/ ...
    python -m evatok.alignment.benchmarks vtok-tv-align --annotations triples.csv --videos samples/ --model FOLDER
    python -m evatok.alignment.benchmarks mvbench ... --prompts prompts.csv         what would be asked, without a model

The user provides data and model. The triples of TV-Align's format are a CSV of clip, prompt, category, question,
options (joined by " | ") and answer, as `python -m evatok.alignment --prompts` writes them. Accuracy is that of the
likeliest letter, over all questions and by group, with half its 95 % interval; every question's outcome is stored
beside the record.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from evatok import errors
from evatok.alignment.benchmarks.frames import even_frames, video_of
from evatok.alignment.benchmarks.items import Item
from evatok.alignment.benchmarks.readers import READERS, read
from evatok.alignment.benchmarks.scores import accuracies, outcomes
from evatok.alignment.benchmarks.vision_language import VisionLanguageModel
from evatok.alignment.benchmarks.wording import prompt_of
from evatok.evaluation import per_clip, protocols
from evatok.evaluation.protocols import Protocol
from evatok.storage import records
from evatok.storage.arguments import folder, positive, with_debug
from evatok.storage.environment import REPOSITORY, environment
from evatok.storage.files import sha256_file

NAME = "evatok.alignment.benchmarks"
KIND = "benchmark"


def main(argv: list[str] | None = None) -> int:
    """Run the command; on an error, exit with 2 after one line on stderr."""
    options = _parser().parse_args(argv)
    with errors.one_line(NAME, debug=options.debug):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Run what the options ask for."""
    protocol = protocols.get(options.protocol)
    items, left_out = read(protocol.name, options.annotations)
    items = items[: options.limit or len(items)]
    if left_out:
        print(f"{left_out} questions are not of multiple choice and are left out")
    prompts = [prompt_of(protocol.name, item, options.subtitles) for item in items]
    if options.prompts:
        options.prompts.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({"name": [item.name for item in items], "prompt": prompts})
        table["answer"] = [item.letters[item.answer] for item in items]
        table.to_csv(options.prompts, index=False)
        print(f"{options.prompts}: {len(items)} questions")
        return 0
    started = time.monotonic()
    videos = [video_of(item, options.videos) for item in items]  # report a missing one before hours of work
    model = VisionLanguageModel.load(options.model, options.device)
    right = answered(model, items, prompts, videos, options.frames or protocol.frames)
    metrics = accuracies(right, [item.group for item in items], [item.video for item in items])
    rows = [(name, found.value, found.spread, found.n) for name, found in metrics.items()]
    print(tabulate(rows, headers=("metric", "%", "±", "questions"), floatfmt=".1f"))
    if options.records:
        arrays = outcomes(items, right)
        told = {"metrics": metrics, "environment": environment(time.monotonic() - started)}
        print(f"record    {_record(options, protocol, model, arrays, told)}")
    return 0


def answered(
    model: VisionLanguageModel, items: list[Item], prompts: list[str], videos: list[Path], frames: int
) -> np.ndarray:
    """Return (N,) whether each question is answered correctly."""
    right = np.zeros(len(items), dtype=bool)
    for number, item in enumerate(tqdm(items, model.identity["name"], unit="question", disable=None)):
        seen = even_frames(videos[number], frames, item.start, item.end)
        right[number] = model.answer(seen, prompts[number], item.letters) == item.answer
    return right


def _record(
    options: argparse.Namespace,
    protocol: Protocol,
    model: VisionLanguageModel,
    arrays: dict[str, np.ndarray],
    told: dict[str, Any],
) -> Path:
    count, frames = len(arrays["right"]), options.frames or protocol.frames
    kept = per_clip.write(arrays, options.per_clip, per_clip.MEASURED)
    inside = kept.resolve().is_relative_to(REPOSITORY)
    shape = [count, frames, protocol.size, protocol.size, 3]
    manifest = {"name": protocol.data, "split": protocol.split, "seed": protocol.clip_seed, "shape": shape}
    sources = {"annotations": _hashed(options.annotations), "protocol": protocol.hash}
    record = records.new_record(
        kind=KIND,
        status=options.status,
        protocol=protocol.to_record({**manifest, **sources}, count, options.limit),
        model=model.identity,
        metrics=told["metrics"],
        config={"frames": frames, "limit": options.limit, "annotations": str(options.annotations)},
        environment=told["environment"],
        artifacts={per_clip.MEASURED: records.Artifact.of(kept)} if inside else {},
    )
    return records.write(record, options.records)


def _hashed(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.name: sha256_file(file) for file in files}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=sorted(READERS), help="the benchmark")
    parser.add_argument("--annotations", type=Path, required=True, help="its annotation file, or a folder of several")
    parser.add_argument("--videos", type=Path, default=Path(), help="folder of its videos (default: current folder)")
    parser.add_argument("--subtitles", type=Path, help="folder of its subtitles, VIDEO.srt")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="folder of a vision-language model in Hugging Face's format")
    what.add_argument("--prompts", type=Path, metavar="CSV", help="write the prompts to this file and exit")
    parser.add_argument(
        "--frames", type=positive, default=0, help="evenly spaced frames of a video (default: protocol's)"
    )
    parser.add_argument("--limit", type=positive, help="only the first questions; not comparable")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--status", choices=records.STATUSES, default="paper", help="status of the record")
    parser.add_argument("--records", type=folder, default=Path("results/records"), help="folder; '': none")
    parser.add_argument("--per-clip", type=Path, default=Path("results/per_clip"), help="folder of question outcomes")
    return with_debug(parser)


if __name__ == "__main__":
    raise SystemExit(main())
