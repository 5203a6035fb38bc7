"""Signals: functions of the user that are called, in this process, when something happens.

A receiver is a function that accepts `**kwargs`; it is given `signal`, `sender` and what the signal brings. It is held
weakly unless `weak=False`, so a function that nobody else keeps disappears.
"""

from __future__ import annotations

import inspect
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("celery.utils.dispatch.signal")

_RETRY_DELAYS = (*range(2, 30, 2), 30)  # seconds; the last one is repeated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Receiver:
    """One connection: who is called, and for which sender (None: for all)."""

    ref: Callable[[], Callable[..., Any] | None]
    sender: Any
    retry: bool

    def hears(self, sender: Any) -> bool:
        """Whether it is called for `sender`: the same object, or an equal text."""
        if self.sender is None or self.sender is sender:
            return True
        return isinstance(self.sender, str) and isinstance(sender, str) and self.sender == sender


class Signal:
    """Something that can happen, and who wants to know.

    Where a signal is sent often, `if signal.receivers: signal.send(...)` costs one test when nobody listens.

    Args:
        providing_args: the names of what it brings, for the reader.
        use_caching: accepted as in Celery; there is nothing to cache.
        name: shown by repr().
        raises: the first error of a receiver is raised by `send`, after all receivers were called.
    """

    retry_delays: tuple[float, ...] = _RETRY_DELAYS

    def __init__(
        self, providing_args: Iterable[str] | None = None, use_caching: bool = False, name: str | None = None, *, raises: bool = False
    ) -> None:
        del use_caching
        self.providing_args = frozenset(providing_args or ())
        self.name = name
        self.raises = raises
        # Invariant: only single dict operations touch it, so threads and dying receivers need no lock.
        self.receivers: dict[tuple[Any, Any], _Receiver] = {}

    @overload
    def connect(self, receiver: F, sender: Any = ..., weak: bool = ..., dispatch_uid: Any = ..., retry: bool = ...) -> F: ...
    @overload
    def connect(
        self, receiver: None = ..., sender: Any = ..., weak: bool = ..., dispatch_uid: Any = ..., retry: bool = ...
    ) -> Callable[[F], F]: ...
    def connect(self, receiver: Any = None, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False) -> Any:
        """Calls `receiver` when this signal is sent; may be used as a decorator, with or without arguments.

        Args:
            receiver: a function or bound method that accepts `**kwargs`.
            sender: only signals of this sender: the same object, or an equal text.
            weak: do not keep the receiver alive.
            dispatch_uid: connects only one receiver of this id, whatever function it is.
            retry: call the receiver again, after growing delays, until it does not raise.

        Raises:
            ValueError: the receiver does not accept `**kwargs`.
        """
        if receiver is None:
            return partial(self.connect, sender=sender, weak=weak, dispatch_uid=dispatch_uid, retry=retry)
        _check_accepts_kwargs(receiver)
        key = _key(receiver, sender, dispatch_uid)
        ref = _weak(receiver, partial(self._forget, key)) if weak else _Strong(receiver)
        entry = _Receiver(ref=ref, sender=sender, retry=retry)
        if self.receivers.setdefault(key, entry).ref() is None:
            self.receivers[key] = entry
        return receiver

    def disconnect(self, receiver: Any = None, sender: Any = None, weak: Any = None, dispatch_uid: Any = None) -> bool:
        """Takes back a `connect` with the same arguments; says whether there was one."""
        del weak
        return self.receivers.pop(_key(receiver, sender, dispatch_uid), None) is not None

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether anybody would be called for this sender."""
        return any(entry.hears(sender) and entry.ref() is not None for entry in list(self.receivers.values()))

    def send(self, sender: Any, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Calls all receivers, in the order in which they connected.

        Returns:
            Pairs of receiver and what it returned or, if it raised, the exception, which is logged too.
        """
        responses: list[tuple[Callable[..., Any], Any]] = []
        for entry in list(self.receivers.values()):
            receiver = entry.ref() if entry.hears(sender) else None
            if receiver is None:
                continue
            call = partial(receiver, signal=self, sender=sender, **named)
            responses.append((receiver, self._call_until_it_works(receiver, call) if entry.retry else _call(receiver, call)))
        if self.raises:
            for _, response in responses:
                if isinstance(response, Exception):
                    raise response
        return responses

    send_robust = send

    def _call_until_it_works(self, receiver: Any, call: Callable[[], Any]) -> Any:
        tries = 0
        while isinstance(response := _call(receiver, call), Exception):
            time.sleep(self.retry_delays[min(tries, len(self.retry_delays) - 1)])
            tries += 1
        return response

    def _forget(self, key: tuple[Any, Any], ref: Any) -> None:
        entry = self.receivers.get(key)
        if entry is not None and entry.ref is ref:
            self.receivers.pop(key, None)

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={sorted(self.providing_args)}>"


class _Strong:
    """Looks like a weak reference and keeps its object."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[..., Any]) -> None:
        self._target = target

    def __call__(self) -> Callable[..., Any]:
        return self._target


def _call(receiver: Any, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # a receiver is the user's code and must not stop ours
        logger.exception("Signal handler %r raised: %r", receiver, error)  # noqa: TRY401 - readers of Celery's logs look for it
        return error


def _weak(receiver: Any, on_death: Callable[[Any], None]) -> Callable[[], Callable[..., Any] | None]:
    if inspect.ismethod(receiver):
        return weakref.WeakMethod(receiver, on_death)
    return weakref.ref(receiver, on_death)


def _key(receiver: Any, sender: Any, dispatch_uid: Any) -> tuple[Any, Any]:
    return (_identity(receiver) if dispatch_uid is None else dispatch_uid, sender if isinstance(sender, str) else id(sender))


def _identity(receiver: Any) -> Any:
    # A bound method is made anew at each access; its two halves are not.
    return (id(receiver.__self__), id(receiver.__func__)) if inspect.ismethod(receiver) else id(receiver)


def _check_accepts_kwargs(receiver: Any) -> None:
    if not callable(receiver):
        raise TypeError(f"A signal receiver must be callable, and {receiver!r} is not. Pass a function.")
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except ValueError:  # some functions written in C do not tell
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(f"The signal receiver {receiver!r} does not accept **kwargs. Add them: later versions may send more.")


# In the process that publishes. The sender is the name of the task.
before_task_publish = Signal(
    ("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"), name="before_task_publish"
)  # the very dicts that are sent
after_task_publish = Signal(("body", "exchange", "routing_key", "headers"), name="after_task_publish")
task_sent = Signal(("task_id", "task", "args", "kwargs", "eta", "taskset"), name="task_sent")  # use after_task_publish

# Where the task runs. The sender is the task.
task_prerun = Signal(("task_id", "task", "args", "kwargs"), name="task_prerun")
task_postrun = Signal(("task_id", "task", "args", "kwargs", "retval", "state"), name="task_postrun")
task_success = Signal(("result", "runtime"), name="task_success")
task_retry = Signal(("request", "reason", "einfo"), name="task_retry")
task_failure = Signal(("task_id", "exception", "args", "kwargs", "traceback", "einfo"), name="task_failure")
task_internal_error = Signal(("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"), name="task_internal_error")

# In the worker's parent.
task_received = Signal(("request",), name="task_received")
task_revoked = Signal(("request", "terminated", "signum", "expired"), name="task_revoked")
task_unknown = Signal(("message", "exc", "name", "id"), name="task_unknown")
task_rejected = Signal(("message", "exc"), name="task_rejected")
celeryd_init = Signal(("instance", "conf", "options"), name="celeryd_init")
celeryd_after_setup = Signal(("instance", "conf"), name="celeryd_after_setup")
worker_init = Signal(name="worker_init")
worker_ready = Signal(name="worker_ready")
worker_shutting_down = Signal(("sig", "how", "exitcode"), name="worker_shutting_down")
worker_shutdown = Signal(name="worker_shutdown")
heartbeat_sent = Signal(name="heartbeat_sent")

# Around the processes that run tasks.
worker_before_create_process = Signal(name="worker_before_create_process")
worker_process_init = Signal(name="worker_process_init")
worker_process_shutdown = Signal(("pid", "exitcode"), name="worker_process_shutdown")

# Any process that loads the app. An error in a receiver of the first two ends the start.
import_modules = Signal(name="import_modules", raises=True)
setup_logging = Signal(("loglevel", "logfile", "format", "colorize"), name="setup_logging", raises=True)
after_setup_logger = Signal(("logger", "loglevel", "logfile", "format", "colorize"), name="after_setup_logger")
after_setup_task_logger = Signal(("logger", "loglevel", "logfile", "format", "colorize"), name="after_setup_task_logger")
user_preload_options = Signal(("app", "options"), name="user_preload_options")

# In beat.
beat_init = Signal(name="beat_init")
beat_embedded_init = Signal(name="beat_embedded_init")

# Never sent: their pools are replaced by `asyncio` and `threads`. Here so that old imports work.
eventlet_pool_started = Signal(name="eventlet_pool_started")
eventlet_pool_preshutdown = Signal(name="eventlet_pool_preshutdown")
eventlet_pool_postshutdown = Signal(name="eventlet_pool_postshutdown")
eventlet_pool_apply = Signal(("target", "args", "kwargs"), name="eventlet_pool_apply")
