"""What Celery and kombu have, umbel does not need, and programs written for them ask for."""

from __future__ import annotations

import os
import platform
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import umbel
from umbel.current import Proxy, get_current_app

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = [
    "BILLIARD", "BILLIARD_VERSION", "KOMBU", "KOMBU_VERSION", "VERSION", "VERSION_BANNER", "SystemConnectionError", "__version__",
    "app_or_default", "bugreport", "bytes_to_str", "cached_property", "ensure_bytes",
    "maybe_patch_concurrency", "register_after_fork", "safe_repr", "safe_str", "str_to_bytes", "tasks", "version_info",
]  # fmt: skip

# The versions whose interface umbel follows: others ask which names there are, not who made them.
__version__, KOMBU, BILLIARD = "5.7.0", "5.7.0", "4.3.2"
version_info_t = namedtuple("version_info_t", "major minor micro releaselevel serial")  # noqa: PYI024 - Celery's, compared with tuples
VERSION = version_info = version_info_t(5, 7, 0, "", "")
KOMBU_VERSION, BILLIARD_VERSION = version_info_t(5, 7, 0, "", ""), version_info_t(4, 3, 2, "", "")
VERSION_BANNER = f"{__version__} (umbel {umbel.__version__})"
SystemConnectionError = ConnectionError

tasks = Proxy("tasks", lambda: get_current_app().tasks)


def app_or_default(app: Umbel | None = None) -> Umbel:
    """Return *app*, or the current one."""
    return get_current_app() if app is None else app


def bugreport(app: Umbel | None = None) -> str:
    """Say which software this is."""
    software = f"software -> umbel:{umbel.__version__} (as celery:{__version__}) py:{platform.python_version()}"
    return f"{software}\nplatform -> {platform.platform()}\nbroker -> {app_or_default(app).broker_address()}"


def maybe_patch_concurrency(*_: Any, **__: Any) -> None:
    """There is nothing to patch: umbel has no gevent or eventlet pools."""


def register_after_fork(obj: Any, func: Callable[[Any], Any]) -> None:
    """Call `func(obj)` in each process that is forked from this one."""
    os.register_at_fork(after_in_child=lambda: func(obj))


def bytes_to_str(value: Any) -> Any:
    """Return bytes as text, and anything else as it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def str_to_bytes(value: Any) -> Any:
    """Return text as bytes, and anything else as it is."""
    return value.encode() if isinstance(value, str) else value


def ensure_bytes(value: Any) -> bytes:
    """Return bytes of anything."""
    return value if isinstance(value, bytes) else str(value).encode()


def safe_str(value: Any, errors: str = "replace") -> str:
    """Return a text of anything."""
    if isinstance(value, bytes):
        return value.decode(sys.getdefaultencoding(), errors)
    return value if isinstance(value, str) else safe_repr(value)


def safe_repr(value: Any, errors: str = "replace") -> str:  # noqa: ARG001 - kombu's
    """Return the repr of anything, also of what has none that works."""
    try:
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - whatever a repr raises
        return f"<Unrepresentable {type(value)!r}: {type(exc).__name__}: {exc}>"
