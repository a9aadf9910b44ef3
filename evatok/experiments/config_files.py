"""Read Sacred's `with FILE` and command-line values as plain data that cannot run code.

Sacred passes JSON files and every `with KEY=VALUE` to jsonpickle, which calls any function they name, and it unpickles
pickle files. Here a file is plain JSON, or plain YAML if PyYAML is installed.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NoReturn, TextIO

from evatok.errors import EvatokError

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred.arg_parser
    from sacred.config import config_files
    from sacred.config.utils import assert_is_valid_key

JSON_SUFFIXES, YAML_SUFFIXES = (".json",), (".yaml", ".yml")


class ConfigFileError(EvatokError, ValueError):
    """A configuration file that is not plain JSON or YAML, or a key, there or on the command line, that is no name."""


def guard() -> None:
    """Make Sacred read configuration files and command-line values through this module from now on."""
    config_files.HANDLER_BY_EXT.clear()
    config_files.get_handler = handler_of
    sacred.arg_parser.restore = lambda value: value


def handler_of(filename: str) -> Any:
    """Return the handler Sacred reads and writes the file with. Raises ConfigFileError for an unknown suffix."""
    suffix = Path(filename).suffix
    if suffix in JSON_SUFFIXES:
        return config_files.Handler(_read_json, _write_json, "")
    if suffix in YAML_SUFFIXES:
        return config_files.Handler(_read_yaml, _write_yaml, "")
    raise ConfigFileError(
        f"{filename}: configuration files are JSON or YAML, so a name ends in "
        f"{', '.join(JSON_SUFFIXES + YAML_SUFFIXES)}; to use the named configuration, move the file of the same "
        "name away"
    )


def _read_json(file: TextIO) -> dict[str, Any]:
    try:
        return _mapping(json.load(file, parse_constant=_refuse_constant), file)
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, "JSON", error) from error


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number in JSON")


def _write_json(config: Any, file: TextIO) -> None:
    json.dump(config, file, sort_keys=True, indent=2)


def _read_yaml(file: TextIO) -> dict[str, Any]:
    yaml = _yaml(file)
    try:
        return _mapping(yaml.safe_load(file), file)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(file, "YAML", error) from error


def _write_yaml(config: Any, file: TextIO) -> None:
    _yaml(file).safe_dump(config, file)


def _yaml(file: TextIO) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigFileError(f"{file.name}: YAML needs PyYAML: pip install pyyaml, or give JSON") from error
    return yaml


def check_keys(value: Any, where: str) -> None:
    """Raise ConfigFileError, naming `where`, for a key at any depth that Sacred cannot store, such as "py/reduce"."""
    if isinstance(value, dict):
        for key, held in value.items():
            try:
                assert_is_valid_key(key)
            except (KeyError, IndexError) as error:  # IndexError: empty
                raise ConfigFileError(f"{where}: {key!r} cannot be the name of a config key") from error
            check_keys(held, where)
    if isinstance(value, list | tuple):
        for held in value:
            check_keys(held, where)


def _mapping(found: Any, file: TextIO) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigFileError(f"{file.name}: a configuration file maps keys to values, got {found!r:.60}")
    check_keys(found, file.name)
    return found


def _unreadable(file: TextIO, kind: str, error: Exception) -> ConfigFileError:
    """Return the error that names the file; one that already does is kept."""
    if isinstance(error, ConfigFileError):
        return error
    told = " ".join(str(error).split())
    return ConfigFileError(f"{file.name} is not plain {kind}, and nothing else is read ({told})")
