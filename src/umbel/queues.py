"""Which queues an app has, and which of them a worker consumes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from umbel.exceptions import QueueNotFound
from umbel.routing import Queue, Router

if TYPE_CHECKING:
    from umbel.config import Settings

__all__ = ["consumed_queues", "describe_queues", "queue_arguments", "router_of"]


def router_of(conf: Settings) -> Router:
    """Make the router that the settings describe."""
    return Router(
        conf.task_queues,
        conf.task_routes,
        default_queue=conf.task_default_queue,
        default_exchange=conf.task_default_exchange,
        default_exchange_type=conf.task_default_exchange_type,
        default_routing_key=conf.task_default_routing_key,
        default_priority=conf.task_default_priority,
        create_missing=conf.task_create_missing_queues,
        missing_queue_type=conf.task_create_missing_queue_type,
        missing_exchange_type=conf.task_create_missing_queue_exchange_type,
        default_queue_type=conf.task_default_queue_type,
        queue_max_priority=conf.task_queue_max_priority,
    )


def queue_arguments(conf: Settings) -> dict[str, dict[str, Any]]:
    """Return with which arguments queues are declared where they have some, by name; under the empty name those of all others."""
    others = {} if conf.task_create_missing_queue_type == "classic" else {"x-queue-type": "quorum"}
    return {"": others, **{name: queue.queue_arguments or others for name, queue in router_of(conf).queues.items()}}


def consumed_queues(router: Router, wanted: str | Iterable[str] | None, excluded: str | Iterable[str] | None) -> list[str]:
    """Return the names of the queues that a worker consumes.

    Args:
        router: knows the queues of the app.
        wanted: names, or a text with commas; none: all that are known.
        excluded: names to leave out.

    Raises:
        QueueNotFound: a queue is not known and may not be made, or none is left.
    """
    names = _names(wanted)
    for name in names:
        router.queue(name)
    names, left_out = names or list(router.queues), _names(excluded)
    left = [name for name in names if name not in left_out]
    if not left:
        raise QueueNotFound(
            f"No queue is left to consume: of {', '.join(names)}, -X (exclude_queues) leaves out {', '.join(left_out)}. "
            "Leave out fewer, or name others with -Q."
        )
    return left


def _names(names: str | Iterable[str] | None) -> list[str]:
    if isinstance(names, str):
        names = names.split(",")
    return list(dict.fromkeys(name.strip() for name in names or () if name.strip()))


def describe_queues(router: Router, names: Iterable[str]) -> list[Queue]:
    """Return the queues of these names, with their exchanges and keys."""
    return [router.queue(name) for name in names]
