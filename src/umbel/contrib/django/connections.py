"""Around each task what Django does around each request: connections, caches, language, time zone."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync
from django.core.cache import close_caches  # type: ignore[import-untyped]
from django.db import Error, connections, reset_queries  # type: ignore[import-untyped]
from django.utils import timezone, translation  # type: ignore[import-untyped]

from umbel import signals

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["after_task", "before_task", "drop_inherited", "install"]

logger = logging.getLogger("celery.django")

_inherited: list[Any] = []  # connections of the parent: collecting them would tell the server that they end


def install() -> None:
    """Tend the connections of this process and its children. Those of the start are closed: a fork may follow."""
    signals.task_prerun.connect(_on_prerun, dispatch_uid="umbel.django.prerun")
    signals.task_postrun.connect(_on_postrun, dispatch_uid="umbel.django.postrun")
    signals.worker_process_init.connect(_on_process_init, dispatch_uid="umbel.django.process_init")
    connections.close_all()
    close_caches()


def before_task() -> None:
    """Close what is too old or unusable, and start with the project's language and zone."""
    reset_queries()
    translation.deactivate()
    timezone.deactivate()
    _tend()


def after_task(name: str = "", task_id: str = "") -> None:
    """End what the task left open, keep connections for as long as CONN_MAX_AGE says, and close caches."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            logger.error("Task %s[%s] left a transaction open on %r; it is rolled back.", name, task_id, connection.alias)
            _abandon(connection)
    _tend()
    close_caches()
    translation.deactivate()
    timezone.deactivate()


def _tend() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            continue  # the caller's: the task was called inside of it
        try:
            connection.close_if_unusable_or_obsolete()
        except Error:
            logger.warning("The connection %r cannot be closed in order; it is dropped.", connection.alias, exc_info=True)
            connection.connection = None


def _abandon(connection: Any) -> None:
    connection.in_atomic_block, connection.needs_rollback = False, False
    connection.savepoint_ids, connection.atomic_blocks, connection.run_on_commit = [], [], []
    try:
        connection.rollback()
        connection.set_autocommit(True)
    except Error:
        logger.warning("The transaction on %r cannot be rolled back in order; its connection is closed.", connection.alias, exc_info=True)
    connection.close()


def drop_inherited() -> None:
    """Forget the parent's connections without a word to the server: their sockets are the parent's too."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _inherited.append(connection.connection)
            connection.connection = None
        pools = getattr(connection, "_connection_pools", None)
        if pools:
            _inherited.append(dict(pools))
            pools.clear()


def _on_prerun(task: Task[..., Any], **_: Any) -> None:
    if not task.request.is_eager:
        before_task()
        _in_thread_of_coroutines(task, _tend)


def _on_postrun(task: Task[..., Any], task_id: str, **_: Any) -> None:
    if not task.request.is_eager:
        after_task(task.name, task_id)
        _in_thread_of_coroutines(task, after_task)


def _in_thread_of_coroutines(task: Task[..., Any], work: Callable[[], None]) -> None:
    # A coroutine reaches the database through sync_to_async, whose one thread holds the connections. What is queued there
    # runs before the next query of any task, so nobody waits for it.
    if inspect.iscoroutinefunction(task.run):
        SyncToAsync.single_thread_executor.submit(work)


def _on_process_init(**_: Any) -> None:
    drop_inherited()
