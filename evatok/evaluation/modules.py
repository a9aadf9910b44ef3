"""Networks inside what is measured: they run in evaluation mode while they are, and are left as they were."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

DEPTH = 4
"""How far below the surface a module is looked for: a function's, its closure's, that closure's object's."""


@contextmanager
def in_evaluation_mode(thing: Any) -> Iterator[None]:
    """Every network that `thing` leads to in evaluation mode; afterwards each part has its own mode again.

    A module fresh from its constructor is in training mode: it would drop values at random, and its batch statistics
    would be those of the clips measured.
    """
    found = list(modules_in(thing))
    modes = [(part, part.training) for module in found for part in module.modules()]
    try:
        for module in found:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def modules_in(thing: Any, depth: int = DEPTH, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """The networks that an object, a method or a function holds or names, each once.

    Looked for in attributes, lists, tuples and dictionaries, in what a function closes over, and in the globals it
    names. What a function imports or makes anew when it is called is not found.
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
    except ValueError:  # a name that has no value yet
        return []
    return [*named.nonlocals.values(), *named.globals.values()]
