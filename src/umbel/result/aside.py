"""Blocking calls for coroutines."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["to_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* in a thread."""
    import asyncio

    return await asyncio.to_thread(function, *args, **kwargs)
