"""What a worker writes to its log, and in which form. Logger names and formats are Celery's, for those who parse them."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextvars import ContextVar
from logging.handlers import WatchedFileHandler
from typing import Any, ClassVar, TextIO

from umbel import signals

__all__ = [
    "FORMAT",
    "TASK_FORMAT",
    "ColorFormatter",
    "LoggingProxy",
    "TaskFormatter",
    "flush_redirected",
    "get_logger",
    "get_task_logger",
    "mlevel",
    "redirect_stdouts",
    "setup_logging",
    "task_in_log",
]

FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

# (name, id) of the task that runs in this context; whoever runs a task sets it.
task_in_log: ContextVar[tuple[str, str] | None] = ContextVar("task_in_log", default=None)

_OUTSIDE = ("???", "???")
_RESERVED = frozenset({"celery", "celery.task"})
_MAX_PENDING = 64 * 1024  # characters of a line without end that are kept before they are logged as they are


def mlevel(level: int | str | None) -> int:
    """The number of a level that is given by number or name; 0 for None.

    Raises:
        ValueError: no level has this name.
    """
    if not level:
        return 0
    if isinstance(level, int):
        return level
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level. Use DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    return number


def get_logger(name: str) -> logging.Logger:
    """The logger of this name."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for a module of tasks: its lines show the name and id of the task that runs.

    Raises:
        RuntimeError: the name is one of Celery's own.
    """
    if name in _RESERVED:
        raise RuntimeError(f"Logger name {name!r} is reserved! Use the name of your module: get_task_logger(__name__).")
    logger = logging.getLogger(name)
    if not name.startswith("celery.task."):
        logger.parent = logging.getLogger("celery.task")
    return logger


# --- formatters -------------------------------------------------------------------------------------------------------


class ColorFormatter(logging.Formatter):
    """A formatter that colours whole lines by their level, if `use_color` is true."""

    colors: ClassVar[dict[str, str]] = {"DEBUG": "34", "WARNING": "33", "ERROR": "31", "CRITICAL": "35"}  # ANSI colours

    def __init__(self, fmt: str | None = None, use_color: bool = True) -> None:
        super().__init__(fmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record, with its traceback if it has one."""
        line = super().format(record)
        color = self.colors.get(record.levelname) if self.use_color else None
        return f"\x1b[1;{color}m{line}\x1b[0m" if color else line


class TaskFormatter(ColorFormatter):
    """A formatter that knows `task_name` and `task_id` of the task that runs; both are `???` outside of one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        name, task_id = task_in_log.get() or _OUTSIDE
        record.__dict__.update(task_name=name, task_id=task_id)
        return super().format(record)


# --- setting up -------------------------------------------------------------------------------------------------------


def setup_logging(
    level: int | str = "WARNING",
    logfile: str | os.PathLike[str] | TextIO | None = None,
    *,
    format: str = FORMAT,
    task_format: str = TASK_FORMAT,
    color: bool | None = None,
    hijack_root: bool = True,
    redirect_stdouts: bool = True,
    redirect_level: int | str = "WARNING",
) -> bool:
    """Makes the logs of this process those of a worker, unless a receiver of the signal `setup_logging` does it.

    Args:
        level: of the root logger and of the logger of tasks.
        logfile: a path or an open stream; None: standard error.
        format: of all lines but those of task loggers.
        task_format: of the lines of task loggers.
        color: None: if the lines go to a terminal.
        hijack_root: removes the handlers that the root logger had; otherwise a root logger with handlers is left alone.
        redirect_stdouts: whether what is printed becomes lines of the log.
        redirect_level: the level of these lines.

    Returns:
        Whether anything was set up here.
    """
    number = mlevel(level)
    stream = sys.__stderr__ if logfile is None else logfile
    colored = _is_terminal(stream) if color is None else color
    told = {"loglevel": number, "logfile": logfile, "colorize": colored}
    _mirror_in_environment(number, logfile, redirect_level if redirect_stdouts else None)
    if signals.setup_logging.receivers and signals.setup_logging.send(None, format=format, **told):
        return False
    root, tasks = logging.getLogger(), logging.getLogger("celery.task")
    if hijack_root:
        for logger in (root, logging.getLogger("celery"), tasks, logging.getLogger("celery.redirected")):
            _drop_handlers(logger)
        logging.captureWarnings(capture=True)
    if not root.handlers:
        root.setLevel(number)
        root.addHandler(_handler(stream, ColorFormatter(format, colored)))
    signals.after_setup_logger.send(None, logger=root, format=format, **told)
    _drop_handlers(tasks)
    tasks.setLevel(number)
    tasks.addHandler(_handler(stream, TaskFormatter(task_format, colored)))
    tasks.propagate = False
    signals.after_setup_task_logger.send(None, logger=tasks, format=task_format, **told)
    if redirect_stdouts:
        _redirect(redirect_level)
    return True


def _drop_handlers(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def _handler(stream: Any, formatter: logging.Formatter) -> logging.Handler:
    # A watched file is opened again after logrotate has moved it.
    handler: logging.Handler = (
        WatchedFileHandler(stream, encoding="utf-8") if isinstance(stream, str | os.PathLike) else logging.StreamHandler(stream)
    )
    handler.setFormatter(formatter)
    return handler


def _is_terminal(stream: Any) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def _mirror_in_environment(level: int, logfile: Any, redirect_level: int | str | None) -> None:
    """Tells programs that a task starts how the worker logs, under Celery's names."""
    os.environ["CELERY_LOG_LEVEL"] = str(level)
    os.environ["CELERY_LOG_FILE"] = str(logfile) if isinstance(logfile, str | os.PathLike) else ""
    os.environ["CELERY_LOG_REDIRECT"] = "" if redirect_level is None else "1"
    os.environ["CELERY_LOG_REDIRECT_LEVEL"] = "" if redirect_level is None else str(redirect_level)


# --- what is printed --------------------------------------------------------------------------------------------------


class LoggingProxy(io.TextIOBase):
    """A stream whose lines become records of a logger, one record per line.

    A line is logged when its end is written. `flush` alone logs nothing, so that `print(".", end="", flush=True)` in a
    loop stays one line; `flush_pending` logs what is left.

    Args:
        logger: gets the records.
        loglevel: of the records; None: the logger's own level.
        original: the stream whose place it takes; asked for what a logger does not have, such as `fileno`.
    """

    def __init__(self, logger: logging.Logger, loglevel: int | str | None = None, original: Any = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or logger.level)
        self._original = original
        self._of_thread = _ThreadState()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Text is logged as it is."""
        return "utf-8"

    @property
    def buffer(self) -> Any:
        """The bytes of the original stream, past the log."""
        return self._original.buffer

    def fileno(self) -> int:
        """The descriptor of the original stream, for programs that are started with it."""
        if self._original is None:
            raise io.UnsupportedOperation("fileno")
        return int(self._original.fileno())

    def isatty(self) -> bool:
        """A log is no terminal."""
        return False

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, text: str) -> int:
        """Logs the lines that `text` completes."""
        state = self._of_thread
        if state.logging:
            # A handler failed and logging prints the reason here: logging that would fail again, without end.
            if sys.__stderr__ is not None:
                sys.__stderr__.write(text)
            return len(text)
        *lines, rest = (state.pending + text).split("\n")
        # A progress bar writes over its line; only what would be visible counts.
        visible = rest.rstrip("\r")
        state.pending = visible.rpartition("\r")[2] + rest[len(visible) :][:1]
        if len(state.pending) > _MAX_PENDING:
            lines.append(state.pending)
            state.pending = ""
        for line in lines:
            self._log(line)
        return len(text)

    def flush_pending(self) -> None:
        """Logs the line that this thread has begun and not ended."""
        if pending := self._of_thread.pending:
            self._of_thread.pending = ""
            self._log(pending)

    def _log(self, line: str) -> None:
        visible = line.rstrip().rpartition("\r")[2]
        if not visible:
            return
        self._of_thread.logging = True
        try:
            self.logger.log(self.loglevel, "%s", visible)
        finally:
            self._of_thread.logging = False


class _ThreadState(threading.local):
    """What one thread has begun to write."""

    pending = ""
    logging = False


def redirect_stdouts(level: int | str = "WARNING") -> None:
    """Makes what is printed in this process lines of the logger `celery.redirected`."""
    _redirect(level)


def _redirect(level: int | str) -> None:
    logger = logging.getLogger("celery.redirected")
    sys.stdout = LoggingProxy(logger, level, sys.__stdout__)
    sys.stderr = LoggingProxy(logger, level, sys.__stderr__)


def flush_redirected() -> None:
    """Logs what this thread has printed without ending the line; to be called when a task ends."""
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is LoggingProxy:  # of an abstract class isinstance() takes ten times as long
            stream.flush_pending()
