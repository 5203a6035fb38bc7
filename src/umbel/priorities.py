"""Priorities of calls. Each broker has its own direction: RabbitMQ delivers the highest number first, all others the lowest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel.broker_urls import broker_url, is_rabbitmq
from umbel.exceptions import ImproperlyConfigured
from umbel.wire import message as wire
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.config import Settings
    from umbel.routing import Router

__all__ = ["checked", "turned", "turns"]

HIGHEST = 9  # where a queue does not say: as Celery's steps on Redis


def turns(conf: Settings) -> bool:
    """Answer whether `task_priority_direction` is not the broker's own, so that numbers are turned round."""
    if conf.task_priority_direction is None:
        return False
    try:
        highest_first = is_rabbitmq(broker_url(conf))
    except ImproperlyConfigured:  # eager calls need no broker
        return False
    low_first: bool = conf.task_priority_direction == "low-first"
    return highest_first == low_first


def turned(router: Router, queue: str, priority: Any) -> int:
    """Return the number that goes first in *queue* when *priority* goes last; and back, as it is the same way."""
    known = router.queues.get(queue)
    highest = HIGHEST if known is None else known.queue_arguments.get("x-max-priority", HIGHEST)
    return max(0, highest - checked(priority))


def checked(priority: Any) -> int:
    """Return *priority*, if it can be one.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(priority, int) or not 0 <= priority <= wire.HIGHEST_PRIORITY:
        raise ValueError(f"priority is {saferepr(priority, 60)}. It must be a whole number from 0 to {wire.HIGHEST_PRIORITY}.")
    return int(priority)
