"""Find the networks inside a system and run them in eval mode while it is measured."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

DEPTH = 4
"""Levels of nesting to search for modules: a function, its closure, an object in that closure."""


@contextmanager
def in_evaluation_mode(thing: Any) -> Iterator[None]:
    """Put every network that `thing` holds in eval mode, then restore the mode of each part.

    A freshly constructed module is in training mode: it would apply dropout, and normalise with the statistics of the
    clips being measured.
    """
    networks = list(modules_in(thing))
    modes = [(part, part.training) for module in networks for part in module.modules()]
    try:
        for module in networks:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def modules_in(thing: Any, depth: int = DEPTH, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """Yield the networks that an object, a method or a function refers to, each once.

    Searches attributes, lists, tuples and dictionaries, a function's closure, and the globals it names. What a function
    imports or creates when it is called is not found.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or depth < 0:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        yield thing
        return
    for part in _parts(thing):
        yield from modules_in(part, depth - 1, seen)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, ModuleType | type):
        return []
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if inspect.ismethod(thing):
        return [thing.__self__, thing.__func__]
    if inspect.isfunction(thing):
        return [*_closed_over(thing), *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    return list(vars(thing).values()) if hasattr(thing, "__dict__") else []


def _closed_over(function: Any) -> list[Any]:
    try:
        named = inspect.getclosurevars(function)
    except ValueError:  # a name without a value yet
        return []
    return [*named.nonlocals.values(), *named.globals.values()]
