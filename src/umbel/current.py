"""The current app, the running task, and the registry through which an app reaches what lies below it.

`current_app` and `current_task` are proxies for users; nothing inside umbel uses them.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from weakref import WeakSet, ref

from umbel.context import Context

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = [
    "Frame",
    "Proxy",
    "all_apps",
    "current_app",
    "current_frame",
    "current_task",
    "get_current_app",
    "get_current_task",
    "known_app",
    "pop_frame",
    "push_frame",
    "reach",
    "registry",
    "request_of",
    "set_default_app",
    "set_thread_app",
    "standing_in",
    "worker_frame",
]

T = TypeVar("T")

# The only way from the client down to what stands on it: a name, and where it is.
registry: dict[str, str] = {
    "app": "umbel.app:Umbel",
    "beat": "umbel.beat.program:Beat",
    "cli": "umbel.cli:main",
    "runner": "umbel.execution.eager:run",
    "worker": "umbel.worker.worker:Worker",
}


def reach(name: str) -> Any:
    """Import and return what *name* stands for in the registry.

    Raises:
        LookupError: nothing of that name is registered.
    """
    try:
        module, _, attribute = registry[name].partition(":")
    except KeyError:
        raise LookupError(f"Nothing is registered as {name!r}. Known: {', '.join(sorted(registry))}.") from None
    return getattr(importlib.import_module(module), attribute)


# --- the running task


class Frame(NamedTuple):
    """One running task, and the one that called it."""

    task: Task[..., Any]
    request: Context
    below: Frame | None


_frames: ContextVar[Frame | None] = ContextVar("umbel_frames", default=None)  # of this thread, and of this asyncio task

current_frame = _frames.get


def push_frame(task: Task[..., Any], request: Context) -> Token[Frame | None]:
    """Make *task* the running one, until `pop_frame`."""
    return _frames.set(Frame(task, request, _frames.get()))


def pop_frame(token: Token[Frame | None]) -> None:
    """Undo a `push_frame`."""
    _frames.reset(token)


def request_of(task: Task[..., Any]) -> Context:
    """Return the innermost request of *task* in this thread or asyncio task; a blank one if it does not run."""
    frame = _frames.get()
    while frame is not None:
        if frame.task is task:
            return frame.request
        frame = frame.below
    return Context()


def worker_frame() -> Frame | None:
    """Return the innermost task that a worker runs: one that was merely called does not count."""
    frame = _frames.get()
    while frame is not None and frame.request.called_directly:
        frame = frame.below
    return frame


def get_current_task() -> Task[..., Any] | None:
    """Return the running task."""
    frame = _frames.get()
    return None if frame is None else frame.task


# --- the current app


class _ThreadApp(threading.local):
    app: Umbel | None = None


class _ProcessApps:
    default: Umbel | None = None
    latest: ref[Umbel] | None = None  # of those that were made current in any thread
    fallback: Umbel | None = None  # made for want of any


_thread = _ThreadApp()
_process = _ProcessApps()
_making = threading.Lock()
all_apps: WeakSet[Umbel] = WeakSet()


def set_thread_app(app: Umbel | None) -> None:
    """Make *app* the current one of this thread; other threads that have none will find it too."""
    _thread.app = app
    if app is not None:
        _process.latest = ref(app)


def set_default_app(app: Umbel | None) -> None:
    """Make *app* the one of all threads that have no current one."""
    _process.default = app


def default_app() -> Umbel | None:
    """Return what was given to `set_default_app`."""
    return _process.default


def known_app() -> Umbel | None:
    """Return this thread's app, else the default one, else the latest made current elsewhere, else None."""
    app = _thread.app or _process.default
    if app is None and _process.latest is not None:
        app = _process.latest()
    return app


@contextlib.contextmanager
def standing_in(app: Umbel) -> Iterator[None]:
    """Make *app* the current one of this thread, and the default one of all others, while the block runs."""
    thread, default, latest = _thread.app, _process.default, _process.latest
    _thread.app = _process.default = app
    try:
        yield
    finally:
        _thread.app, _process.default, _process.latest = thread, default, latest


def get_current_app() -> Umbel:
    """Return the known app; without any, make one that reads `celeryconfig.py` if there is such a module."""
    app = known_app()
    if app is None:
        with _making:
            app = known_app() or _process.fallback or _fallback_app()
    return app


def _fallback_app() -> Umbel:
    app: Umbel = reach("app")("default", fixups=(), set_as_current=False, config_source="celeryconfig", config_source_silent=True)
    _process.fallback = app
    return app


# --- the two proxies


class Proxy:
    """Stands for an object that is looked up at each use."""

    __slots__ = ("_find", "_name")

    def __init__(self, name: str, find: Any) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_find", find)

    def _get_current_object(self) -> Any:
        """Return the object itself."""
        return object.__getattribute__(self, "_find")()

    @property
    def __class__(self) -> Any:
        return type(self._get_current_object())

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError(f"The class of a proxy cannot be changed to {value!r}.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return self._get_current_object()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())


current_app = cast("Umbel", Proxy("current_app", get_current_app))
current_task = cast("Task[..., Any]", Proxy("current_task", get_current_task))
