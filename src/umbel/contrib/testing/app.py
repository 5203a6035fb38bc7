"""Apps for tests."""
# ruff: noqa: N802 - Celery's names

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from umbel.app import Umbel
from umbel.current import standing_in
from umbel.ids import uuid

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app"]

DEFAULT_TEST_CONFIG: Final[Mapping[str, Any]] = {
    "accept_content": ["json"],
    "broker_heartbeat": 0,
    "broker_url": "memory://",
    "enable_utc": True,
    "result_backend": "cache+memory://",
    "timezone": "UTC",
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "worker_redirect_stdouts": False,
    "worker_watchdog_timeout": 0.0,  # a debugger may stop anything for any time
}


class UnitLogging:
    """Stands for Celery's class: the log of a test is that of its program, unless `TestApp(enable_logging=True)`."""


class Trap:
    """An app that nobody may use: who asks for the current app has forgotten to hand an app on."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"Test depends on current_app, asked for {name!r}. Use the app of the test, or depends_on_current_app.")


def TestApp(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = None,
    backend: str | None = None,
    broker: str | None = None,
    **kwargs: Any,
) -> Umbel:
    """Make an app for tests, with a broker and a result backend in memory that no other app has.

    Args:
        name: of the app.
        config: settings that differ from `DEFAULT_TEST_CONFIG`.
        enable_logging: let its worker set up the log of this process.
        set_as_current: make it the current app.
        log: has no effect.
        backend: the URL of the result backend.
        broker: the URL of the broker.
        kwargs: as for the app.
    """
    del log
    settings = {**DEFAULT_TEST_CONFIG, **(config or {})}
    store = uuid()
    for option, value in (("broker_url", broker), ("result_backend", backend)):
        settings[option] = value or settings[option]
        if settings[option] in {"memory://", "cache+memory://"}:  # what a test leaves there must not reach the next one
            settings[option] += store
    app = Umbel(name or "celery.tests", set_as_current=set_as_current, changes=settings, **kwargs)
    vars(app)["test_logging"] = enable_logging
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


@contextlib.contextmanager
def set_trap(app: Umbel) -> Iterator[None]:
    """Let every use of the current app fail in the block."""
    del app
    with standing_in(cast("Umbel", Trap())):
        yield


@contextlib.contextmanager
def setup_default_app(app: Umbel, use_trap: bool = False) -> Iterator[None]:
    """Make *app* the current and the default app in the block; with *use_trap*, none."""
    with set_trap(app) if use_trap else standing_in(app):
        yield
