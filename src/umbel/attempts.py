"""Messages on their way to a broker that may be away for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from umbel.broker import Broker, Item
from umbel.exceptions import BrokerUnavailable
from umbel.using import chosen, connection_for

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["deliver"]

SHORTEST_ATTEMPT = 0.1  # seconds: less would be no attempt, even at the end of the time


def deliver(app: Umbel, items: Sequence[Item], retry: bool | None, policy: Mapping[str, Any] | None, using: object = None) -> None:
    """Put *items* on the broker, again after a failure if *retry* or the settings say so.

    Through a connection of the caller's they go once: whether its transaction can go on after a failure is the caller's to know.

    Raises:
        BrokerUnavailable: the broker did not take them within `broker_publish_timeout`, or is known to be away.
    """
    broker, breaker, started = app.broker, app.breaker, time.monotonic()
    maybe = using is not None or chosen.get() is not None or app.conf.task_publish_using is not None
    if maybe and (using := connection_for(app, using)) is not None:
        broker.publish(items, using=using)
        return
    if breaker.outage is not None and breaker.knows(broker):
        breaker.attempt(broker, lambda: broker.publish(items))
        return
    try:
        broker.publish(items)  # which keeps to the deadline by itself
    except BrokerUnavailable as exc:
        try:
            _deliver_again(broker, items, exc, started + app.conf.broker_publish_timeout, _pauses(app, retry, policy))
        except BrokerUnavailable as last:
            if last.unreachable and app.conf.broker_publish_breaker:
                breaker.open(broker, last, begun=started)
            raise
    breaker.answered = started


def _deliver_again(broker: Broker, items: Sequence[Item], exc: BrokerUnavailable, deadline: float, pauses: Iterator[float]) -> None:
    for pause in pauses:
        # What may have arrived is not sent twice behind the caller's back.
        if exc.maybe_sent or time.monotonic() + pause >= deadline:
            break
        time.sleep(pause)
        try:
            broker.publish(items, timeout=max(deadline - time.monotonic(), SHORTEST_ATTEMPT))
        except BrokerUnavailable as again:
            exc = again
        else:
            return
    raise exc


def _pauses(app: Umbel, retry: bool | None, policy: Mapping[str, Any] | None) -> Iterator[float]:
    """Yield how long to wait before each attempt after the first."""
    conf = app.conf
    if not (conf.task_publish_retry if retry is None else retry):
        return
    policy = {**(conf.task_publish_retry_policy or {}), **(policy or {})}
    most = policy.get("max_retries", 3)
    pause, step, longest = policy.get("interval_start", 0), policy.get("interval_step", 0.2), policy.get("interval_max", 1)
    for attempt in count() if most is None else range(most):
        yield float(min(pause + step * attempt, longest))
