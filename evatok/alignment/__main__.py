"""Judge samples of any text-to-video model: `python -m evatok.alignment FOLDER --protocol moving-shapes-align`.

    python -m evatok.alignment --prompts prompts.csv       the prompts to make samples of, and what is asked of them
    python -m evatok.alignment my_videos/                  judge them: 0.mp4, 1.mp4, ... or one array (N, T, H, W, 3)
    python -m evatok.alignment my_videos/ --judge MODEL    by a model of vtok_understanding instead of the ruler
    python -m evatok.alignment --answers qwen.csv          score the answers of a judge elsewhere
    python -m evatok.alignment --real                      the real clips: what could be reached at best

Accuracy is reported by category and by what must be seen to answer, each with half its 95 % interval, and recorded with
the outcome of every question. Any failure becomes one line on stderr, see `evatok.errors`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from evatok import errors
from evatok.alignment import triples as asked_of
from evatok.alignment.judge import Judge, judge_of
from evatok.alignment.triples import Triples
from evatok.evaluation import per_clip, protocols
from evatok.storage import records
from evatok.storage.arguments import folder, positive, with_debug
from evatok.storage.environment import REPOSITORY, environment
from evatok.storage.files import sha256_file
from evatok.vtok.scoring import METRICS, Outcomes

NAME = "evatok.alignment"
KIND = "alignment"
_BATCH = 50  # clips per batch


def main(argv: list[str] | None = None) -> int:
    """Run the command; on an error, exit with 2 after one line on stderr."""
    options = _parser().parse_args(argv)
    with errors.one_line(NAME, debug=options.debug):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Run what the options ask for."""
    triples = asked_of.triples_of(protocols.get(options.protocol), options.limit)
    if options.prompts:
        options.prompts.parent.mkdir(parents=True, exist_ok=True)
        triples.table().to_csv(options.prompts, index=False)
        print(f"{options.prompts}: {len(triples)} prompts, {sum(map(len, triples.questions))} questions")
        return 0
    started = time.monotonic()
    given, model = _answers(options, triples)
    outcomes = Outcomes(*asked_of.right(triples, given))
    metrics = outcomes.metrics()
    rows = [(name, found.value, found.spread, found.n) for name, found in metrics.items() if name in METRICS]
    print(tabulate(rows, headers=("metric", "%", "±", "questions"), floatfmt=".1f"))
    if options.records:
        told = environment(time.monotonic() - started)
        path = _record(options, triples, outcomes, {"model": model, "metrics": metrics, "environment": told})
        print(f"record    {path}")
    return 0


def _answers(options: argparse.Namespace, triples: Triples) -> tuple[list[list[str]], dict[str, Any]]:
    """Return the answers and, for the record, what was judged by whom."""
    if options.answers:
        sha256 = sha256_file(options.answers)
        return asked_of.answers_in(options.answers, triples), {"judge": {"name": "elsewhere", "sha256": sha256}}
    judge = judge_of(options.judge, options.encoder)
    told = {"judge": {"name": judge.name, "version": judge.version}}
    if options.real:
        real = protocols.clips_of(triples.protocol, limit=options.limit)
        return answered(judge, real.clips, triples), {**told, "samples": "real clips"}
    samples = asked_of.samples_of(options.folder, triples)
    return answered(judge, samples, triples), {**told, "samples": samples.identity}


def answered(judge: Judge, clips: Any, triples: Triples) -> list[list[str]]:
    """Return a judge's answers to all questions about clips (N, T, H, W, 3), an array or a folder read on access."""
    found: list[list[str]] = []
    with tqdm(total=len(triples), desc=judge.name, unit="clip", disable=None) as bar:
        for start in range(0, len(triples), _BATCH):
            piece = np.asarray(clips[start : start + _BATCH])
            if piece.dtype != np.uint8:
                piece = (np.clip(piece, 0, 1) * 255).round().astype(np.uint8)
            found += judge.answers(piece, triples.texts[start : start + _BATCH])
            bar.update(len(piece))
    return found


def _record(options: argparse.Namespace, triples: Triples, outcomes: Outcomes, found: dict[str, Any]) -> Path:
    limit = options.limit if options.limit != triples.protocol.clips else None
    kept = per_clip.write(outcomes.arrays(), options.per_clip, per_clip.MEASURED)
    inside = kept.resolve().is_relative_to(REPOSITORY)
    record = records.new_record(
        kind=KIND,
        status=options.status,
        protocol=triples.protocol.to_record(triples.manifest, len(triples), limit),
        model={"name": options.name, **found["model"]},
        metrics=found["metrics"],
        config={"judge": str(options.judge), "limit": options.limit, "folder": str(options.folder or "")},
        environment=found["environment"],
        artifacts={per_clip.MEASURED: records.Artifact.of(kept)} if inside else {},
    )
    return records.write(record, options.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="samples, named by their prompts' numbers")
    what.add_argument("--prompts", type=Path, metavar="CSV", help="write prompts and questions to this file and exit")
    what.add_argument("--answers", type=Path, metavar="CSV", help="score these answers: columns clip, category, answer")
    what.add_argument("--real", action="store_true", help="judge the real clips of the prompts")
    parser.add_argument("--protocol", default=asked_of.ONE_EACH, help=f"default: {asked_of.ONE_EACH}")
    parser.add_argument("--judge", default="ruler", help="ruler (default), or a vtok_understanding checkpoint")
    parser.add_argument(
        "--encoder",
        type=Path,
        default=Path("results/checkpoints/vtok-image-encoder-toy.safetensors"),
        help="the model's image encoder",
    )
    parser.add_argument("--limit", type=positive, help="only the first prompts; not comparable")
    parser.add_argument("--name", default="", help="name of the model that made the samples, for the record")
    parser.add_argument("--status", choices=records.STATUSES, default="toy", help="status of the record (default: toy)")
    parser.add_argument(
        "--records", type=folder, default=Path("results/records"), help="folder of the record; '': none"
    )
    parser.add_argument(
        "--per-clip", type=Path, default=Path("results/per_clip"), help="folder of per-question outcomes"
    )
    return with_debug(parser)


if __name__ == "__main__":
    raise SystemExit(main())
