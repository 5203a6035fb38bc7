# ruff: noqa: D102 - the names are the sentences
"""What every bus promises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from umbel.bus import Bus, Heard
from umbel.ids import uuid

__all__ = ["BusConformance"]


class BusConformance:
    """Give the fixture `make_bus`, which makes buses that hear each other."""

    @pytest.fixture
    def make_bus(self) -> Callable[[], Bus]:
        """Return what makes a bus."""
        raise NotImplementedError

    @pytest.fixture
    def bus(self, make_bus: Callable[[], Bus]) -> Iterator[Bus]:
        """Return one bus."""
        made = make_bus()
        yield made
        made.close()
        made.close()

    @pytest.fixture
    def topic(self) -> str:
        """Return a topic of this test's own."""
        return f"test.{uuid()}"

    def test_all_who_listen_hear_what_is_said_in_its_order(self, bus: Bus, make_bus: Callable[[], Bus], topic: str) -> None:
        other = make_bus()
        with bus.subscribe([topic]) as one, other.subscribe([topic]) as two:
            for body in (b"1", b"\x00\xff", b""):
                other.publish(topic, body)
            for listener in (one, two):
                assert [listener.receive(5) for _ in range(3)] == [Heard(topic, b"1"), Heard(topic, b"\x00\xff"), Heard(topic, b"")]
        other.close()

    def test_what_one_says_on_many_topics_is_heard_in_its_order(self, bus: Bus, topic: str) -> None:
        said = [Heard(f"{topic}.{n % 16}", str(n).encode()) for n in range(160)]
        with bus.subscribe([f"{topic}.*"]) as listener:
            for each in said:
                bus.publish(*each)
            assert [listener.receive(5) for _ in said] == said

    def test_what_was_said_before_is_not_heard(self, bus: Bus, topic: str) -> None:
        bus.publish(topic, b"early")
        with bus.subscribe([topic]) as listener:
            assert listener.receive(0.05) is None
            bus.publish(topic, b"now")
            assert listener.receive(5) == Heard(topic, b"now")

    def test_a_star_at_the_end_stands_for_all_that_begin_so(self, bus: Bus, topic: str) -> None:
        with bus.subscribe([f"{topic}.*", f"{topic}?"]) as listener:
            bus.publish(f"{topic}x", b"no")
            bus.publish(f"{topic}.task.started", b"yes")
            bus.publish(f"{topic}?", b"plain")
            assert listener.receive(5) == Heard(f"{topic}.task.started", b"yes")
            assert listener.receive(5) == Heard(f"{topic}?", b"plain")
            assert listener.receive(0.05) is None

    def test_who_waits_hears_at_once_what_another_thread_says(self, bus: Bus, make_bus: Callable[[], Bus], topic: str) -> None:
        other = make_bus()
        with bus.subscribe([topic]) as listener:
            speaker = threading.Timer(0.05, other.publish, (topic, b"late"))
            speaker.start()
            assert listener.receive(10) == Heard(topic, b"late")
            speaker.join()
        other.close()

    def test_a_closed_listener_closes_twice(self, bus: Bus, topic: str) -> None:
        listener = bus.subscribe([topic])
        listener.close()
        listener.close()
        bus.publish(topic, b"to nobody")
