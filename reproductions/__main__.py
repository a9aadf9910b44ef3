"""Rebuild tables and figures from stored results: all of them, or the named ones.

    python -m reproductions                        all, those that measure too (table3: a minute or two)
    python -m reproductions main_table1 figure6    these
    python -m reproductions --list                 what there is

Each is a script in this folder and can be run by itself, with its own options.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

from evatok import errors
from evatok.reporting import command_line

FOLDER = Path(__file__).resolve().parent
TRAINS = ("toy", "vtok/understanding", "vtok/generation")
"""Scripts that train, and so rebuild nothing from stored results."""
LAST = ("readme",)
"""Scripts that read other scripts' tables."""


def items() -> dict[str, str]:
    """Return the scripts in run order, with the first lines of their docstrings."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py"), key=lambda path: (path.stem in LAST, name_of(path))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_script = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if is_script and name_of(path) not in (*TRAINS, "__main__"):
            found[name_of(path)] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def name_of(path: Path) -> str:
    """Name a script by its path in this folder: "main_table1", "videoflextok/table2"."""
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def module_of(name: str) -> str:
    return f"reproductions.{name.replace('/', '.')}"


def run(name: str, options: list[str]) -> int:
    """Run one script in this process; return its exit code."""
    print(f"== {name}", flush=True)
    try:
        code: int = importlib.import_module(module_of(name)).main(options)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else errors.ERROR
    return code


def main(argv: list[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to rebuild (default: all)")
    parser.add_argument("--list", action="store_true", help="list them")
    arguments = parser.parse_args(argv)
    known = items()
    if arguments.list:
        print("\n".join(f"{name:22} {told}" for name, told in known.items()))
        return 0
    for name in arguments.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "--list names them"
            print(f"reproductions: nothing is called {name!r}; {hint}", file=sys.stderr)
            return errors.ERROR
    with errors.one_line("reproductions", debug=arguments.debug):
        command_line.check_results(arguments.results)
    options = ["--results", str(arguments.results), *(["--debug"] if arguments.debug else [])]
    codes = {}
    for name in arguments.names or known:
        codes[name] = run(name, options)
        if codes[name] in (errors.INTERRUPTED, errors.TERMINATED):
            return codes[name]
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"reproductions: {', '.join(failed)} failed, for the reasons above", file=sys.stderr)
    return errors.ERROR if failed else 0


if __name__ == "__main__":
    sys.exit(main())
