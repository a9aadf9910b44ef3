"""Check a configuration before any work starts: seed, types, precision, device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from evatok.errors import EvatokError
from evatok.experiments import keys
from evatok.models.precision import bf16_is_native

if TYPE_CHECKING:
    from sacred.run import Run


class ConfigError(EvatokError, ValueError):
    """A configuration value the experiment cannot start with."""


def check_seed(updates: Mapping[str, Any]) -> None:
    """Refuse a seed that is not an integer: Sacred asserts on it, and invents one for None."""
    seed = updates.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed: expected an int from 0 to 2**32 - 1, got {seed!r}; print_config shows the defaults")


def settle_types(run: Run, declared: Mapping[str, keys.Key]) -> None:
    """Bring declared keys into their domains, and convert an int given for a float.

    Raises:
        Refused: a declared key outside its domain.
        ConfigError: an undeclared key whose value changes type otherwise.
    """
    for name, key in declared.items():
        run.config[name] = keys.settled(key, name, run.config[name])
    keys.check_together({name: run.config[name] for name in declared})
    for path, (expected, given) in sorted(run.config_modifications.typechanged.items()):
        *parents, last = path.split(".")
        if path.partition(".")[0] in declared:
            continue
        holder = run.config
        for parent in parents:
            holder = holder[parent]
        if (expected, given) != (float, int):
            told = f"expected {_type_name(expected)}, got {holder[last]!r} ({_type_name(given)})"
            raise ConfigError(f"config key {path}: {told}; print_config lists every key with its default")
        holder[last] = float(holder[last])


def settle_precision(config: dict[str, Any]) -> None:
    """Resolve a `bf16` of None to True or False, so that the record states it. Raises ConfigError if not a bool."""
    bf16 = config.get("bf16", False)
    if config.get("fp16"):
        if bf16:
            raise ConfigError("config key fp16: it excludes bf16=True; set one of them")
        config["bf16"] = False
    elif bf16 is None:
        config["bf16"] = bf16_is_native(device_of(config["device"]))
    elif not isinstance(bf16, bool):
        raise ConfigError(f"config key bf16: expected True, False or None, got {bf16!r}; print_config explains it")


def device_of(name: Any) -> torch.device:
    """Parse the `device` key, whether or not it is available. Raises ConfigError for an unknown device."""
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"config key device: {name!r} is not a device; give cpu, cuda or cuda:N") from error


def check_device(name: str) -> None:
    """Raise ConfigError, before any work, for a device that is not available."""
    device = device_of(name)
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"config key device: {name} is not supported; give cpu, cuda or cuda:N")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("config key device: mps is not available; give device=cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"config key device: {name} is not available, PyTorch sees no GPU; give device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"config key device: {name} is not available, PyTorch sees {torch.cuda.device_count()} GPUs")


def _type_name(kind: type) -> str:
    for plain in (dict, list, tuple):
        if issubclass(kind, plain):
            return plain.__name__
    return "None" if kind is type(None) else kind.__name__
