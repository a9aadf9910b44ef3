"""Domains of configuration values: type and range or set of values, described in words."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


class Refused(ValueError):  # noqa: N818 (its message continues a sentence)
    """A value outside its domain; the message says what was given and what is allowed."""


class Domain:
    """A set of values. `str()` completes the sentence "the value is not ..."."""

    kind: str

    def settled(self, value: Any) -> Any:
        """Return `value` as the experiment gets it, floats as floats. Raises Refused outside the domain."""
        raise NotImplementedError

    def wrong_type(self, value: Any) -> Refused:
        told = "None" if value is None else f"{value!r} ({type(value).__name__})"
        return Refused(f"expected {'str' if self.kind == 'str' else self}, got {told}")


@dataclass(frozen=True)
class Whole(Domain):
    """Multiples of `step` from `low` to `high`, both included."""

    low: int
    high: int
    step: int = 1
    kind = "int"

    def __str__(self) -> str:
        return f"an int from {self.low} to {self.high}" + (f", a multiple of {self.step}" if self.step > 1 else "")

    def settled(self, value: Any) -> int:
        if type(value) is not int:
            raise self.wrong_type(value)
        if not self.low <= value <= self.high or value % self.step:
            raise Refused(f"{value!r} is not {self}")
        return value


@dataclass(frozen=True)
class Real(Domain):
    """Finite numbers from `low` to `high`; "(" leaves out the lower end, ")" the upper one."""

    low: float
    high: float
    ends: str = "[]"
    kind = "float"

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:.9g}" if self.ends[0] == "(" else f"{self.low:.9g} or more"
        return f"in {self.ends[0]}{self.low:.9g}, {self.high:.9g}{self.ends[1]}"

    def wrong_type(self, value: Any) -> Refused:
        return Refused(str(super().wrong_type(value)).replace("expected ", "expected a number ", 1))

    def settled(self, value: Any) -> float:
        if type(value) not in (int, float):
            raise self.wrong_type(value)
        above = value > self.low if self.ends[0] == "(" else value >= self.low
        below = value < self.high if self.ends[1] == ")" else value <= self.high
        if not (above and below and math.isfinite(value)):
            raise Refused(f"{value!r} is not {self}")
        return float(value)


@dataclass(frozen=True)
class Flag(Domain):
    """True or False; with `none`, also None."""

    none: bool = False
    kind = "bool"

    def __str__(self) -> str:
        return "True, False or None" if self.none else "True or False"

    def settled(self, value: Any) -> bool | None:
        if type(value) is not bool and not (self.none and value is None):
            raise self.wrong_type(value)
        return bool(value) if value is not None else None


@dataclass(frozen=True)
class OneOf(Domain):
    """One of several words, looked up when a value is checked; `empty` admits "" as well."""

    words: Collection[str]
    empty: bool = False
    kind = "str"

    def __str__(self) -> str:
        return ", ".join(self.words) + (' or ""' if self.empty else "")

    def settled(self, value: Any) -> str:
        if type(value) is not str:
            raise self.wrong_type(value)
        if value not in self.words and not (self.empty and not value):
            raise Refused(f"{value!r} is not one of {self}")
        return value


@dataclass(frozen=True)
class Text(Domain):
    """A text such as a path: not empty unless `empty`, matching `pattern`, which `form` describes in words."""

    empty: bool = False
    pattern: str = r"[^\0]*"
    form: str = "text"
    kind = "str"

    def __str__(self) -> str:
        return f'{self.form} or ""' if self.empty else self.form

    def settled(self, value: Any) -> str:
        if type(value) is not str:
            raise self.wrong_type(value)
        if not (self.empty if not value else re.fullmatch(self.pattern, value, re.DOTALL)):
            raise Refused(f"{value!r} is not {self}" if value else f"it is empty; {self} is needed")
        return value


@dataclass(frozen=True)
class Many(Domain):
    """A list of at least `least` values from one domain."""

    of: Domain
    least: int = 0
    kind = "list"

    def __str__(self) -> str:
        return f"a list of at least {self.least}, each {self.of}" if self.least else f"a list, each {self.of}"

    def settled(self, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise self.wrong_type(value)
        if len(value) < self.least:
            raise Refused(f"{list(value)!r} is not {self}")
        return [self.of.settled(entry) for entry in value]


@dataclass(frozen=True)
class OrNone(Domain):
    """None, or a value from another domain."""

    of: Domain
    kind = "or None"

    def __str__(self) -> str:
        return f"{self.of}, or None"

    def settled(self, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.of.settled(value)
        except Refused as error:
            raise Refused(str(error).replace(str(self.of), str(self), 1)) from error
