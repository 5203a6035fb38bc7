"""Tracebacks that begin where the user's interest does."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType

import click

__all__ = ["from_first_foreign_frame"]

PLUMBING = (
    str(Path(__file__).parent),
    str(Path(click.__file__).parent),
    str(Path(importlib.__file__).parent),
    "<frozen importlib",
    "<frozen runpy",
)


def from_first_foreign_frame(tb: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the frames before the first that is neither of the command line nor of the import system.

    None if there is no other; a syntax error, for one, has no frame of its own.
    """
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(PLUMBING):
        tb = tb.tb_next
    return tb
