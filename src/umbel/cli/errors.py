"""Errors that users can cause, as one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from umbel.cli.find import AppNotFound
from umbel.exceptions import BackendError, KombuError, OperationalError, UmbelError
from umbel.supervisor.pidfile import PidFileTakenError

__all__ = ["Explained", "explain"]

EX_USAGE = 2  # as click
EX_UNAVAILABLE = getattr(os, "EX_UNAVAILABLE", 69)
EX_CANTCREAT = getattr(os, "EX_CANTCREAT", 73)


class Explained(NamedTuple):
    """What to print, and what to return to the shell."""

    sentence: str
    exit_code: int


def explain(exc: BaseException) -> Explained | None:
    """Return what to tell the user; None for an error that is no one's but the program's, or the tasks' own."""
    if isinstance(exc, BaseExceptionGroup):
        return next((told for told in map(explain, exc.exceptions) if told), None)
    if isinstance(exc, AppNotFound):
        return Explained(str(exc), EX_USAGE)
    if isinstance(exc, PidFileTakenError):
        return Explained(str(exc), EX_CANTCREAT)
    if isinstance(exc, OperationalError):
        return Explained(said(exc), EX_UNAVAILABLE)
    if isinstance(exc, UmbelError | KombuError | BackendError) or is_of_django(exc):
        return Explained(said(exc), 1)
    return None


def said(exc: BaseException) -> str:
    """Return the text of an exception; its class where it has none."""
    # A KeyError's text is the repr of what it was given.
    text = exc.args[0] if isinstance(exc, KeyError) and exc.args else exc
    return str(text).strip() or type(exc).__name__


def is_of_django(exc: BaseException) -> bool:
    """Answer whether Django complains of the project: settings that cannot work, or checks that fail."""
    settings, checks = sys.modules.get("django.core.exceptions"), sys.modules.get("django.core.management.base")
    classes = (getattr(settings, "ImproperlyConfigured", None), getattr(checks, "CommandError", None))
    return isinstance(exc, tuple(each for each in classes if each))
