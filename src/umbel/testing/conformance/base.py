# ruff: noqa: D102 - the names are the sentences
"""What the parts of the broker's suite share: fixtures, time, and short ways to say common things."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest

from umbel.backend import Record, ResultBackend
from umbel.broker import Broker, Delivery, Item, Settlement, Verb
from umbel.wire.message import Message, decode, encode, glance

__all__ = [
    "LEASE", "UNKNOWN", "BackendSuite", "BrokerSuite", "ends_in_time", "ids_of",
    "item", "same_message", "settlement", "succeeds_in_child",
]  # fmt: skip

LEASE = 0.3  # seconds; a driver without a clock of its own is waited for in real time
PATIENCE = 10.0  # seconds that a condition may take to come true


class BrokerSuite:
    """Fixtures. A driver's test gives `make_broker`; and `pass_time` if it takes its time from a fake clock."""

    @pytest.fixture
    def make_broker(self) -> Callable[[], Broker]:
        raise NotImplementedError("Give a fixture make_broker, which makes brokers that share one store.")

    @pytest.fixture
    def broker(self, make_broker: Callable[[], Broker]) -> Iterator[Broker]:
        broker = make_broker()
        yield broker
        broker.close()

    @pytest.fixture
    def queue(self) -> str:
        """A queue that no other test uses, as a server may be shared."""
        return f"test-{uuid4().hex}"

    timeless = True  # can the time not be moved, but only be waited for?

    def pass_time(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def now(self) -> float:
        return time.time()

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until *condition* holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.pass_time(0.02)

    def needs_leases(self, broker: Broker) -> None:
        """Skip a test about leases that lapse, if the claims of *broker* end with its connection."""
        if not broker.features.leases:
            pytest.skip("its claims end with the connection")

    def given_back(self, broker: Broker, ids: Sequence[str]) -> list[str]:
        """Return the ids of what was given back, as they came, or sorted if *broker* promises no order."""
        return list(ids) if broker.features.gives_back_to_head else sorted(ids)

    def arrives(self, broker: Broker, raw: bytes, sent: bytes) -> bool:
        """Answer whether what arrived is what was sent, as exactly as *broker* promises."""
        return raw == sent if broker.features.verbatim else same_message(raw, sent)

    def lapsed(self, broker: Broker, queue: str, *, claims: int, started: int = 0) -> list[Delivery]:
        """Publish *claims* messages, let the owner "lost" claim them and mark the first *started*, and let its lease lapse."""
        self.needs_leases(broker)
        broker.publish([item(queue, f"m{n}") for n in range(claims)])
        broker.join("lost", [queue], lease=LEASE)
        deliveries = broker.fetch(queue, claims, owner="lost", seq=1)
        for delivery in deliveries[:started]:
            assert broker.mark_started(delivery)
        self.pass_time(LEASE * 1.2)
        broker.join("heir", [queue], lease=60)
        return deliveries

    def total(self, broker: Broker, queue: str) -> tuple[Any, ...]:
        """Return how many are ready, delayed, claimed, parked, dead; where the engine cannot tell, what equals every number."""
        depth = broker.depth([queue])[queue]
        counts = (depth.ready, depth.delayed, depth.claimed, depth.parked, depth.dead)
        return tuple(UNKNOWN if count is None else count for count in counts)


class Unknown:
    """A number that the engine cannot tell."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


UNKNOWN = Unknown()


def same_message(raw: bytes, other: bytes) -> bool:
    """Answer whether two envelopes hold the same message, however they are written."""
    one, two = decode(raw), decode(other)
    kept = [[each.properties.get(name) for name in ("correlation_id", "reply_to", "priority")] for each in (one, two)]
    return (one.headers, one.body, one.content_type, one.content_encoding, kept[0]) == (
        two.headers, two.body, two.content_type, two.content_encoding, kept[1],
    )  # fmt: skip


def item(queue: str, id: str, *, priority: int = 0, due: float | None = None, size: int = 0) -> Item:
    """Make a message as a client would."""
    message = Message(
        headers={"lang": "py", "task": "tests.add", "id": id, "retries": 0},
        properties={
            "correlation_id": id,
            "priority": priority,
            "delivery_tag": id,
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
        body=json.dumps([["x" * size], {}, {}]).encode(),
    )
    return Item(raw=encode(message), queue=queue, id=id, priority=priority, due=due)


def ids_of(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the task ids, in order: a driver may write marks into a message, so bytes are not compared."""
    return [glance(delivery.raw).id for delivery in deliveries]


def settlement(
    delivery: Delivery, verb: Verb = Verb.ACK, *, reason: str = "", replacement: Item | None = None, records: Sequence[Record] = ()
) -> Settlement:
    """Make a settlement that writes nothing beside, but *records*."""
    return Settlement(delivery=delivery, verb=verb, reason=reason, replacement=replacement, records=records)


def succeeds_in_child(function: Callable[[], object]) -> bool:
    """Run *function* in a fork of this process, and answer whether it returned; its error is printed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def ends_in_time(function: Callable[[], object]) -> bool:
    """Run *function* in a fork of this process, and answer whether it returned before it had to be ended."""

    def work() -> None:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE / 2)  # whose signal ends it
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        function()

    return succeeds_in_child(work)


class BackendSuite:
    """What the suites of result backends have in common. Give `make_backend`; and `pass_time` if the time comes from a fake clock."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], ResultBackend]:
        raise NotImplementedError("Give a fixture make_backend, which makes backends that share one store.")

    @pytest.fixture
    def backend(self, make_backend: Callable[[], ResultBackend]) -> Iterator[ResultBackend]:
        backend = make_backend()
        yield backend
        backend.close()

    def pass_time(self, seconds: float) -> None:
        threading.Event().wait(seconds)
