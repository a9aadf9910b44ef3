"""VBench's result files as the columns of VTok's Table 2: `python -m evatok.alignment.vbench RESULTS.json ...`.

python -m evatok.alignment.vbench evaluation_results/*_eval_results.json --name my-model
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from evatok import errors
from evatok.alignment.vbench import QUALITY, SEMANTIC, read, summary
from evatok.evaluation import protocols
from evatok.metrics import catalogue
from evatok.storage import records
from evatok.storage.arguments import folder, with_debug
from evatok.storage.environment import environment
from evatok.storage.files import sha256_file

NAME = "evatok.alignment.vbench"
KIND = "vbench"


def main(argv: list[str] | None = None) -> int:
    """Run the command; on an error, exit with 2 after one line on stderr."""
    options = _parser().parse_args(argv)
    with errors.one_line(NAME, debug=options.debug):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Print the columns beside the paper's, and write a record."""
    scores = read(options.files)
    values = {**summary(scores), **{name: 100 * score for name, score in scores.items()}}
    lacking = sorted({**QUALITY, **SEMANTIC}.keys() - scores.keys())
    if lacking:
        print(f"no total: {', '.join(lacking)} missing")
    print(pd.Series(values, name="%").round(2).to_string())
    if options.records:
        print(f"record    {_record(options, values, len(scores))}")
    return 0


def _record(options: argparse.Namespace, values: Mapping[str, float], dimensions: int) -> Path:
    protocol = protocols.get("vbench")
    told = {"name": protocol.data, "split": protocol.split, "files": {p.name: sha256_file(p) for p in options.files}}
    record = records.new_record(
        kind=KIND,
        status=options.status,
        protocol=protocol.to_record(told, dimensions, None),
        model={"name": options.name},
        metrics={f"vbench.{name}": catalogue.of("vbench").measured(value, 1) for name, value in values.items()},
        config={"files": [str(path) for path in options.files]},
        environment=environment(0.0),
    )
    return records.write(record, options.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="VBench's result files")
    parser.add_argument("--name", required=True, help="name of the model that made the samples, for the record")
    parser.add_argument("--status", choices=records.STATUSES, default="paper", help="status of the record")
    parser.add_argument("--records", type=folder, default=Path("results/records"), help="folder; '': none")
    return with_debug(parser)


if __name__ == "__main__":
    raise SystemExit(main())
