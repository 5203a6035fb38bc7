"""What a worker looks at, and says, before it begins."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umbel import logs
from umbel.exceptions import ImproperlyConfigured, SecurityWarning
from umbel.ids import node_format

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.config import FrozenSettings, Settings

__all__ = ["check_settings", "open_log", "warn_of_root", "warn_of_what_is_not_built"]

logger = logging.getLogger("celery.worker")


def check_settings(app: Umbel, conf: FrozenSettings) -> None:
    """Refuse what would fail later, in tasks.

    Raises:
        ImproperlyConfigured: a lease that cannot be renewed in time, a soft limit behind the hard one, or a time zone that does not exist.
    """
    if not 0 < conf.worker_lease_renewal < conf.worker_lease:
        raise ImproperlyConfigured(
            f"worker_lease_renewal ({conf.worker_lease_renewal:g} s) must be above 0 and below worker_lease ({conf.worker_lease:g} s), "
            "best a quarter of it: what is not renewed in time is run again elsewhere."
        )
    hard, soft = conf.task_time_limit, conf.task_soft_time_limit
    if hard and soft and soft > hard:
        raise ImproperlyConfigured(
            f"task_soft_time_limit ({soft:g} s) must not be above task_time_limit ({hard:g} s): the task would be ended before its "
            "soft limit. Raise task_time_limit (--time-limit), or lower the other (--soft-time-limit)."
        )
    _ = app.timezone


def open_log(conf: FrozenSettings, level: int | str, file: str | None, *, node: str, index: int, color: bool | None) -> None:
    """Begin the log. Children write to the same file, as they are forked from this process.

    Args:
        conf: says what is logged, and how.
        level: as in `logging`.
        file: its path, in which parts of the name of the node may stand; standard error if None.
        node: the full name of the node.
        index: of the worker among those of one supervisor.
        color: None: as `worker_log_color` says.

    Raises:
        ImproperlyConfigured: the file cannot be opened.
    """
    path = node_format(file, node, index=index) if file else None
    try:
        logs.setup_logging(
            level, path, format=conf.worker_log_format, task_format=conf.worker_task_log_format,
            color=conf.worker_log_color if color is None else color, hijack_root=conf.worker_hijack_root_logger,
            redirect_stdouts=conf.worker_redirect_stdouts, redirect_level=conf.worker_redirect_stdouts_level,
        )  # fmt: skip
    except OSError as exc:
        if path is None:
            raise
        raise ImproperlyConfigured(
            f"The log cannot be written to {path} ({exc.strerror}). Make its folder, or give another file with -f."
        ) from exc


def warn_of_root() -> None:
    """Warn an operator who runs the worker as root: tasks can then do anything to this machine."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and not os.environ.get("C_FORCE_ROOT"):
        warnings.warn(
            "You're running the worker with superuser privileges: every task can then do anything to this machine. "
            "Run it as another user, or set C_FORCE_ROOT=1 if you mean it.", SecurityWarning, stacklevel=2,
        )  # fmt: skip


def warn_of_what_is_not_built(conf: Settings, options: Mapping[str, Any]) -> None:
    """Say which settings and options the user relies on in vain."""
    later = list(conf.set_with("later"))
    if options.get("task_events"):
        later.append("-E")
    if later:
        logger.warning("Not built yet, and without effect in this version of umbel: %s.", ", ".join(later))
