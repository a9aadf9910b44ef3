"""Third-party weights from the command line: `python -m evatok.weights [list|prefetch|verify] [NAME ...]`.

list      show every file: state, size, sha256 and path (the default)
prefetch  download the files that are absent, so that later runs need no network
verify    hash the files that exist; a file given by name must exist

The exit code is 1 if a file is wrong or could not be downloaded; the reason is one line on stderr. Other errors are one
line as well, see `evatok.errors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tabulate import tabulate

from evatok import errors
from evatok.storage.arguments import with_debug
from evatok.weights import WeightsError
from evatok.weights.catalogue import FILES, Finding, WeightsFile, inspect, named


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        files = named(options.names)
    except ValueError as error:
        parser.error(str(error))
    with errors.one_line("evatok.weights", debug=options.debug):
        if options.command == "prefetch":
            return prefetch(files)
        return verify(files, must_exist=bool(options.names)) if options.command == "verify" else show(files)


def show(files: Sequence[WeightsFile]) -> int:
    """Print a table with one row per file."""
    print(tabulate([_row(inspect(file)) for file in files], headers=HEADERS, disable_numparse=True))
    return 0


def prefetch(files: Sequence[WeightsFile]) -> int:
    """Download all files; failures are reported, and do not stop the others."""
    return max(_prefetch(file) for file in files)


def verify(files: Sequence[WeightsFile], must_exist: bool) -> int:
    """Report every wrong file, and every absent one if `must_exist`."""
    findings = [inspect(file) for file in files]
    for finding in findings:
        print(f"{finding.file.name}: {finding.state}{f' {finding.path}' if finding.path else ''}")
        if finding.problem:
            _complain(finding.problem)
        elif must_exist and finding.state == "absent":
            _complain(f"{finding.file.name} is absent: python -m evatok.weights prefetch {finding.file.name}")
    return int(any(f.state == "wrong" or (must_exist and f.state == "absent") for f in findings))


HEADERS = ("name", "metrics", "state", "MB", "sha256", "path")


def _row(finding: Finding) -> tuple[str, ...]:
    size = "" if finding.size is None else f"{finding.size / 1e6:.1f}"
    file = finding.file
    return (file.name, file.metrics, finding.state, size, (finding.sha256 or "")[:16], str(finding.path or ""))


def _prefetch(file: WeightsFile) -> int:
    try:
        file.bring()
    except (WeightsError, OSError) as error:
        _complain(str(error))
        return 1
    print(f"{file.name}: {inspect(file).path}")
    return 0


def _complain(problem: str) -> None:
    print(f"evatok.weights: {' '.join(problem.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evatok.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", default="list", choices=("list", "prefetch", "verify"))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"all of them by default: {', '.join(file.name for file in FILES)}"
    )
    return with_debug(parser)


if __name__ == "__main__":
    sys.exit(main())
