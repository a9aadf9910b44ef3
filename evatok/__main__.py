"""The command `evatok`: `evatok COMMAND ...` runs `python -m MODULE ...` of the module that the command names.

evatok                                    lists the commands
evatok data build freedoom --clips 32     python -m evatok.data build freedoom --clips 32
evatok stage1_proxy with toy steps=200    python -m evatok.experiments.stage1_proxy with toy steps=200
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

from evatok import errors

PACKAGE = Path(__file__).resolve().parent


def commands() -> dict[str, Path]:
    """The file behind each command: the packages with a `__main__`, and the experiments that have a main."""
    found = {path.parent.name: path for path in sorted(PACKAGE.glob("*/**/__main__.py"))}
    for path in sorted((PACKAGE / "experiments").glob("*.py")):
        if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8"):
            found[path.stem] = path
    return found


def module_of(path: Path) -> str:
    """The dotted name under which `python -m` runs a command's file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__main__" else parts)


def listing() -> str:
    """Every command with the first sentence of its module's docstring, which is read without importing it."""
    lines = ["usage: evatok COMMAND ...", "", "commands (COMMAND --help, or COMMAND print_config for experiments):"]
    for name, path in commands().items():
        told = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        lines.append(f"  {name:20} {told}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names with the others; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing())
        return 0
    name, *rest = arguments
    errors.quiet_interrupts(f"evatok {name}")
    known = commands()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "`evatok` lists the commands"
        print(f"evatok: no command called {name!r}; {hint}", file=sys.stderr)
        return errors.ERROR
    module = module_of(known[name])
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
