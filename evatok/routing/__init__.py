"""Routers: networks that predict a clip's best assignment, their inputs, and trained ones at an operating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evatok.routing.trained_router import Router as Router

__all__ = ["Router"]


def __getattr__(name: str) -> Any:
    """`Router`, imported on first use: the package's other modules do not need its network."""
    if name != "Router":
        raise AttributeError(f"module 'evatok.routing' has no attribute {name!r}")
    from evatok.routing.trained_router import Router

    return Router
