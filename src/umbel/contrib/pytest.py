"""Fixtures for tests of tasks, under Celery's names: `pytest_plugins = ("umbel.contrib.pytest",)`.

Apps have a broker and a result backend in memory. Workers run in a thread of the program that runs the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from umbel.app import Umbel
from umbel.contrib.testing.app import TestApp, setup_default_app
from umbel.contrib.testing.worker import TestWorkController, start_worker

__all__ = [
    "celery_app", "celery_class_tasks", "celery_config", "celery_enable_logging", "celery_includes", "celery_parameters",
    "celery_session_app", "celery_session_worker", "celery_worker", "celery_worker_parameters", "celery_worker_pool",
    "depends_on_current_app", "pytest_configure", "use_celery_app_trap",
]  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "celery(**overrides): settings of the app of this test (umbel.contrib.pytest)")


@contextlib.contextmanager
def _made_app(
    request: pytest.FixtureRequest, config: Mapping[str, Any], parameters: Mapping[str, Any], *, log: bool, trap: bool
) -> Iterator[Umbel]:
    mark = request.node.get_closest_marker("celery")
    settings = {**config, **(mark.kwargs if mark else {})}
    app = TestApp(config=settings, enable_logging=log, **parameters)
    try:
        with setup_default_app(app, use_trap=trap):
            yield app
    finally:
        app.close()


@contextlib.contextmanager
def _running(app: Umbel, pool: str, parameters: Mapping[str, Any]) -> Iterator[TestWorkController]:
    if os.environ.get("NO_WORKER"):
        pytest.skip("NO_WORKER is set, and this test needs a worker.")
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether a use of the current app is an error: override it to find where an app is not handed on."""
    return False


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Whether workers set up the log of the process."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that are imported before the session's worker starts."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """The pool of workers: `solo`, or `threads`."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the apps."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """What the apps are made with, such as `task_cls` or `strict_typing`."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """What workers are started with, such as `queues`, `concurrency` or `perform_ping_check`."""
    return {}


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Classes of tasks that the session's worker knows."""
    return []


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest, celery_config: Mapping[str, Any], celery_parameters: Mapping[str, Any], celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Umbel]:  # fmt: skip
    """One app for all tests."""
    with _made_app(request, celery_config, celery_parameters, log=celery_enable_logging, trap=use_celery_app_trap) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Umbel, celery_includes: Sequence[str], celery_class_tasks: Sequence[Any], celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[TestWorkController]:  # fmt: skip
    """One worker for all tests."""
    for module in celery_includes:
        importlib.import_module(module)
    for each in celery_class_tasks:
        celery_session_app.register_task(each)
    with _running(celery_session_app, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest, celery_config: Mapping[str, Any], celery_parameters: Mapping[str, Any], celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Umbel]:  # fmt: skip
    """An app for one test."""
    with _made_app(request, celery_config, celery_parameters, log=celery_enable_logging, trap=use_celery_app_trap) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: Umbel, celery_includes: Sequence[str], celery_worker_pool: str, celery_worker_parameters: Mapping[str, Any]
) -> Iterator[TestWorkController]:
    """A worker for one test."""
    for module in celery_includes:
        importlib.import_module(module)
    with _running(celery_app, celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Umbel) -> None:
    """Make the app of this test the current one, trap or not."""
    celery_app.set_current()
