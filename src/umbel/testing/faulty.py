"""A broker that fails where a test says: refuses, loses its reply, is slow, hangs, or takes the process with it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from abc import update_abstractmethods
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import new_class
from typing import Any

from umbel.app import Umbel
from umbel.broker import Broker
from umbel.exceptions import BrokerUnavailable

__all__ = ["Act", "Fault", "FaultyBroker", "faulty_broker"]

LONGEST_HANG = 30.0  # seconds: even a hanging call ends, as every call of a real driver does


class Act(Enum):
    """What goes wrong with a call."""

    REFUSE = "refuse"  # raises `BrokerUnavailable`; the broker was not asked
    LOSE_REPLY = "lose the reply"  # is carried out, and raises `BrokerUnavailable` with `maybe_sent`
    DELAY = "delay"  # is carried out `seconds` later
    HANG = "hang"  # is carried out when the test says `release()`
    HANG_AFTER = "hang after"  # is carried out, and returns when the test says `release()`
    KILL = "kill"  # this process is killed with SIGKILL; the broker was not asked
    KILL_AFTER = "kill after"  # is carried out, and this process is killed with SIGKILL


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    Args:
        method: the name of a method of `umbel.broker.Broker`, such as "publish".
        act: what goes wrong.
        call: with which call of this method it begins; 1 is the first.
        times: with how many calls in a row it goes wrong.
        seconds: how long `DELAY` delays.
    """

    method: str
    act: Act
    call: int = 1
    times: int = 1
    seconds: float = 0.1


def methods_of(interface: type) -> list[str]:
    """Return the names of the public methods of *interface*."""
    return [name for name, value in vars(interface).items() if callable(value) and not name.startswith("_")]


def passed_on(name: str) -> Callable[..., Any]:
    """Return a method that goes through `FaultyBroker.call`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.call(name, *args, **kwargs)

    method.__name__, method.__doc__ = name, getattr(Broker, name).__doc__
    return method


def with_all_methods(namespace: dict[str, Any]) -> None:
    """Fill a class with every method that a broker has: none can be forgotten."""
    namespace.update({name: passed_on(name) for name in methods_of(Broker)})


PassesOn: Any = update_abstractmethods(new_class("PassesOn", (Broker,), exec_body=with_all_methods))


class FaultyBroker(PassesOn):  # type: ignore[misc]  # its methods are made above: those of Broker
    """Any broker, with faults. The same plan, or the same seed, gives the same faults at the same calls.

    Args:
        broker: the real one.
        plan: which calls go wrong, and how.
    """

    def __init__(self, broker: Broker, plan: Sequence[Fault] = ()) -> None:
        unknown = sorted({fault.method for fault in plan} - set(methods_of(Broker)))
        if unknown:
            raise ValueError(f"A broker has no method {unknown[0]!r}. Known: {', '.join(sorted(methods_of(Broker)))}.")
        self.broker, self.plan = broker, list(plan)
        self.features, self.longest_lease = broker.features, broker.longest_lease
        self.calls: Counter[str] = Counter()  # by method
        self.happened: list[tuple[str, int, Act]] = []  # method, number of its call, what went wrong
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._hanging = threading.Event()
        self._chance: tuple[random.Random, float, Sequence[Act], frozenset[str]] | None = None

    @classmethod
    def seeded(
        cls, broker: Broker, seed: int, *, rate: float = 0.1, acts: Sequence[Act] = (Act.REFUSE, Act.LOSE_REPLY),
        methods: Sequence[str] = ("publish", "join", "renew", "fetch", "settle", "recover", "mark_started"),
    ) -> FaultyBroker:  # fmt: skip
        """Return a broker with random faults: of the calls of *methods*, the share *rate* (0 to 1) goes wrong."""
        faulty = cls(broker)
        faulty._chance = random.Random(seed), rate, tuple(acts), frozenset(methods)  # noqa: S311 - it has to be repeatable
        return faulty

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call method *name* of the real broker, with the fault that is due."""
        fault = self._due(name)
        act = None if fault is None else fault.act
        if fault is not None and act is Act.DELAY:
            time.sleep(fault.seconds)
        elif act is Act.HANG:
            self._hang()
        elif act is Act.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        elif act is Act.REFUSE:
            raise BrokerUnavailable(f"A fault of the test: {name} was refused.")
        reply = getattr(self.broker, name)(*args, **kwargs)
        if act is Act.LOSE_REPLY:
            raise BrokerUnavailable(f"A fault of the test: the reply of {name} was lost.", maybe_sent=True)
        if act is Act.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        elif act is Act.HANG_AFTER:
            self._hang()
        return reply

    def _due(self, name: str) -> Fault | None:
        with self._lock:
            self.calls[name] += 1
            number = self.calls[name]
            fault = next((f for f in self.plan if f.method == name and f.call <= number < f.call + f.times), None)
            if fault is None and self._chance is not None:
                chance, rate, acts, methods = self._chance
                if name in methods and chance.random() < rate:
                    fault = Fault(name, chance.choice(acts), call=number)
            if fault is not None:
                self.happened.append((name, number, fault.act))
            return fault

    def _hang(self) -> None:
        self._hanging.set()
        self._released.wait(LONGEST_HANG)

    def hangs(self, timeout: float = 10.0) -> bool:
        """Wait until a call hangs; False if none did within *timeout* seconds."""
        return self._hanging.wait(timeout)

    def release(self) -> None:
        """Let every call that hangs, or will hang, go on."""
        self._released.set()


@contextlib.contextmanager
def faulty_broker(app: Umbel, plan: Sequence[Fault] = ()) -> Iterator[FaultyBroker]:
    """Let *app* use its broker with the faults of *plan* while the block runs."""
    faulty = FaultyBroker(app.broker, plan)
    app.wrap_broker(lambda _: faulty)
    try:
        yield faulty
    finally:
        faulty.release()
        app.wrap_broker(lambda _: faulty.broker)
