"""What a running task writes to servers on its way into another workflow: tried again while one is away, and then the task is.

The ids of what is written are derived from the task's, and copies of a message start once, so a part that was written before is no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from umbel.exceptions import OperationalError
from umbel.retrying import build_again

if TYPE_CHECKING:
    from umbel.task import Task

__all__ = ["patiently"]

logger = logging.getLogger("celery.worker")
T = TypeVar("T")

SHORTEST, LONGEST = 0.05, 0.5  # seconds between two tries
AGAIN_IN = 2.0  # seconds until the task is attempted again


def patiently(task: Task[..., Any], do: Callable[[], T]) -> T:
    """Do what may be repeated, again and again for `broker_publish_timeout`; in an event loop, which nobody may hold up, once.

    Raises:
        Retry: a server stayed away: the task is sent again, and no retry is counted. Who settles it waits for the server.
        OperationalError: a server refuses it, which time does not heal.
    """
    deadline = time.monotonic() + (0.0 if _in_loop() else task.app.conf.broker_publish_timeout)
    pause = SHORTEST
    while True:
        try:
            return do()
        except OperationalError as exc:
            if getattr(exc, "refused", False):
                raise
            if time.monotonic() + pause >= deadline:
                logger.warning("%s[%s] is attempted again: a server that it writes to is away. %s", task.name, task.request.id, exc)
                raise build_again(task, exc, AGAIN_IN) from exc
        time.sleep(pause)
        pause = min(2 * pause, LONGEST)


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
