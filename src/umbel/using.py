"""Sending inside a transaction of the caller's: which connection a call goes through.

It is that of the call (`using=`), else that of the innermost `app.publish_using(...)` around it in this thread, else the setting
`task_publish_using`; mostly there is none, and the broker uses a connection of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["chosen", "connection_for", "publish_using"]


class Chosen(NamedTuple):
    """What `publish_using` chose."""

    thread: int  # a connection is one thread's: others may get a copy of its context, and do not use it
    connections: Mapping[int, object]  # by the id of the app


chosen: ContextVar[Chosen | None] = ContextVar("umbel_publish_using", default=None)


@contextmanager
def publish_using(app: Umbel, connection: object) -> Iterator[None]:
    """Let all calls of *app*'s tasks in this block go through *connection*."""
    before = chosen.get()
    thread = threading.get_ident()
    around = before.connections if before is not None and before.thread == thread else {}
    token = chosen.set(Chosen(thread, {**around, id(app): connection}))
    try:
        yield
    finally:
        chosen.reset(token)


def connection_for(app: Umbel, using: object) -> object:
    """Return the connection that a call goes through; None: the broker's own. `umbel.attempts` asks only if there may be one.

    Raises:
        ImproperlyConfigured: it is named by an alias, and Django has none of that name.
    """
    if using is None and (choice := chosen.get()) is not None and choice.thread == threading.get_ident():
        using = choice.connections.get(id(app))
    if using is None:
        using = app.conf.task_publish_using
    if isinstance(using, str):
        return django_connection(using)
    return using


def django_connection(alias: str) -> Any:
    """Return this thread's connection to the database *alias* of Django's settings.

    Raises:
        ImproperlyConfigured: there is no Django, it has no settings, or they have no such database.
    """
    try:
        from django.core.exceptions import ImproperlyConfigured as DjangoUnconfigured  # type: ignore[import-untyped]
        from django.db import connections  # type: ignore[import-untyped]
        from django.utils.connection import ConnectionDoesNotExist  # type: ignore[import-untyped]

        return connections[alias]
    except ImportError as exc:
        raise ImproperlyConfigured(
            f"Sending through the database {alias!r} needs Django, which is not installed. Give a connection, or run: "
            "pip install 'umbel[django]'."
        ) from exc
    except (DjangoUnconfigured, ConnectionDoesNotExist) as exc:
        raise ImproperlyConfigured(
            f"Sending through the database {alias!r} failed: {exc}. Give an alias of Django's DATABASES, or a connection."
        ) from exc
