"""Every exception and warning of umbel, under the names that Celery's users catch.

The tree has four roots, as Celery's has, so that an `except` clause written for Celery catches the same things here:
`CeleryError` (tasks and configuration), `BackendError` (reading and writing results), `KombuError` (messages and
connections), and the plain exceptions of limits and lost processes.
"""
# ruff: noqa: N818 - Celery's users catch these names, and most do not end in Error.

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn

__all__ = [
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "BackendUnavailable",
    "BrokerUnavailable",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryError",
    "CeleryWarning",
    "ChannelLimitExceeded",
    "ChordError",
    "ConnectionLimitExceeded",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InconsistencyError",
    "InvalidTaskError",
    "KombuError",
    "LimitExceeded",
    "MaxRetriesExceededError",
    "MessageStateError",
    "NotBoundError",
    "NotConfigured",
    "NotRegistered",
    "NotSupported",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "Retry",
    "RetryTaskError",
    "SecurityError",
    "SecurityWarning",
    "SerializationError",
    "SerializerNotInstalled",
    "SoftTimeLimitExceeded",
    "SystemTerminate",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "UmbelError",
    "VersionMismatch",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
]


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raises `value` with the traceback `tb`; `tp` is there because Celery's signature has it."""
    del tp
    raise value.with_traceback(tb) if value.__traceback__ is not tb else value


class UmbelError(Exception):
    """The base of what goes wrong with apps and tasks."""


CeleryError = UmbelError


class ImproperlyConfigured(UmbelError):
    """A setting, or a combination of settings, cannot work."""


class SecurityError(UmbelError):
    """Something was refused because accepting it could run foreign code."""


class NotSupported(UmbelError, NotImplementedError):
    """Celery has this and umbel does not; the message names what to use instead."""


class TaskPredicate(UmbelError):
    """The base of what a task raises to decide its own fate; none of these is a failure."""


class Retry(TaskPredicate):
    """The task is to be run again.

    Args:
        message: replaces the text that is otherwise made of `when` and `exc`.
        exc: the exception that made the task retry, or its text.
        when: seconds from now, or the time.
        is_eager: the task runs eagerly, in the process that called it.
        sig: the signature of the next run.
    """

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
    ) -> None:
        super().__init__(message, exc, when)
        self.message = message
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if isinstance(exc, str) else None if exc is None else repr(exc)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig

    def humanize(self) -> str:
        """When the next run is due, as `in 3s` or `at 2030-01-01 12:00:00`; empty if that is not known."""
        if self.when is None:
            return ""
        return f"in {self.when}s" if isinstance(self.when, int | float) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        told = f"Retry {self.humanize()}".rstrip()
        return f"{told}: {self.excs}" if self.excs else told

    def __reduce__(self) -> tuple[Any, ...]:
        # `sig` may hold an app, which does not travel between processes.
        return type(self), (self.message, self.exc if self.exc is not None else self.excs, self.when, self.is_eager)


RetryTaskError = Retry


class Ignore(TaskPredicate):
    """The task ends here and no state is stored for it."""


class Reject(TaskPredicate):
    """The message is refused: put back on its queue if `requeue` is true, else dropped or dead-lettered."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"

    __str__ = __repr__


class TaskError(UmbelError):
    """The base of what goes wrong with a task."""


class QueueNotFound(KeyError, TaskError):
    """A call names a queue that `task_queues` does not have, and missing queues are not created."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which is right for a key and wrong for a sentence.
        return str(self.args[0]) if self.args else ""


class IncompleteStream(TaskError):
    """The end of a stream was reached before its data was complete."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is known here; the argument is the name."""


class AlreadyRegistered(TaskError):
    """A task of this name exists already."""


class TimeoutError(TaskError):  # noqa: A001 - Celery's name
    """An operation, such as waiting for a result, took longer than its caller allowed."""


class MaxRetriesExceededError(TaskError):
    """The task asked for one more retry than it may have.

    Args:
        args: the sentence.
        task_args: the positional arguments of the task.
        task_kwargs: the keyword arguments of the task.
    """

    def __init__(self, *args: Any, task_args: Any = (), task_kwargs: Any = None) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = {} if task_kwargs is None else task_kwargs


class TaskRevokedError(TaskError):
    """The task was revoked, or expired, before it could finish."""


class InvalidTaskError(TaskError):
    """A message is not a call of a task."""


class ChordError(TaskError):
    """A member of a chord's header failed, so the body will not run."""


class BackendError(Exception):
    """The base of what goes wrong between us and a result backend."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, task_id: str = "") -> None:
        super().__init__(*args)
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """A result could not be written."""

    def __init__(self, *args: Any, state: str = "", task_id: str = "") -> None:
        super().__init__(*args)
        self.state = state
        self.task_id = task_id

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


# --- limits and lost processes ----------------------------------------------------------------------------------------


class SoftTimeLimitExceeded(Exception):
    """The task ran longer than its soft time limit; it is raised inside the task, which may clean up and end."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!r}"


class TimeLimitExceeded(Exception):
    """The task ran longer than its hard time limit and was ended; the argument is the limit in seconds."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!r}"


class WorkerLostError(Exception):
    """The process that ran the task died."""


class Terminated(Exception):
    """The process that ran the task was ended on request."""


class WorkerTerminate(SystemExit):
    """The worker should end at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker should end when its running tasks have ended."""


# --- messages and connections (kombu.exceptions) ----------------------------------------------------------------------


class KombuError(Exception):
    """The base of what goes wrong with messages and connections."""


class OperationalError(KombuError):
    """The service behind a connection cannot be used at the moment; trying again later may help."""


class BrokerUnavailable(OperationalError):
    """The broker did not answer in time.

    Args:
        args: the sentence.
        maybe_sent: the request had left this process, so the broker may have acted on it: sent again, the task may run twice.
        unreachable: no connection to it could be made.
        refused: it answered, and said no.
    """

    def __init__(self, *args: Any, maybe_sent: bool = False, unreachable: bool = False, refused: bool = False) -> None:
        super().__init__(*args)
        self.maybe_sent = maybe_sent
        self.unreachable = unreachable
        self.refused = refused


class BackendUnavailable(OperationalError):
    """The result backend did not answer in time."""


class SerializationError(KombuError):
    """Data could not be turned into bytes, or bytes into data."""


class EncodeError(SerializationError):
    """A value cannot be written in the chosen format."""


class DecodeError(SerializationError):
    """Bytes are not what their content type says."""


class SerializerNotInstalled(KombuError):
    """No serializer is known for this name or content type."""


class ContentDisallowed(SerializerNotInstalled, SerializationError):
    """The content type is known, but `accept_content` does not list it."""


class LimitExceeded(KombuError):
    """A pool has no more to give."""


class ConnectionLimitExceeded(LimitExceeded):
    """All connections of a pool are in use."""


class ChannelLimitExceeded(LimitExceeded):
    """All channels of a connection are in use."""


class NotBoundError(KombuError):
    """A queue or exchange was used before it was given a connection."""


class MessageStateError(KombuError):
    """A message was acknowledged or refused a second time."""


class VersionMismatch(KombuError):
    """A library has a version that cannot be used."""


class InconsistencyError(KombuError):
    """What was found contradicts what was stored, for example a bound queue that is gone."""


class CeleryWarning(UserWarning):
    """The base of our warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` was called with `task_always_eager` set; it publishes all the same."""


class DuplicateNodenameWarning(CeleryWarning):
    """Several workers use one node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two functions were registered under one task name."""


class FixupWarning(CeleryWarning):
    """The integration with a framework could not be set up."""


class NotConfigured(CeleryWarning):
    """A configuration was expected and none was found."""


class SecurityWarning(CeleryWarning):
    """Something that is used is not safe."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something that is used will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Something that is used will go away."""
