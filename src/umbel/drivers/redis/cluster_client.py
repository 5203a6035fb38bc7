"""A client of a Redis Cluster: what `Client` offers, each call sent to the node that has its key.

Each script is given one key, its first argument, for its node to look at before it runs. That is the key of a result, or the base
`{q}` of a queue, which no key has as its name. So while a slot moves to another node, and some of the keys of a queue are here and
some there, the node that gives it away says ASK to every script of that queue: none runs with half of the keys. The call waits
until the slot has moved.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, TryAgainError

from umbel.config_values import masked
from umbel.drivers.redis.addresses import Address, several
from umbel.drivers.redis.client import Begun, Client, Script
from umbel.drivers.redis.slots import Slots
from umbel.exceptions import BrokerUnavailable

__all__ = ["ClusterClient"]

PORT = 6379
TURNED_AWAY = (AskError, TryAgainError, ClusterDownError)  # MOVED is a kind of ASK
PAUSE = 0.02  # seconds until a call that was turned away, as its slot moves, is made again
LEARN_SHARE = 0.3  # of the time for a call that a node has to say who has which slot: others may be asked, and the call is still to be made
Ask = Callable[["NodeClient", list[Any], float], list[Any]]  # the things to send, and by when


class NodeClient(Client):
    """The client of one node."""

    passed_on = (NoScriptError, *TURNED_AWAY)

    def run_many(self, script: Script, calls: Sequence[Sequence[Any]], *, by: float = math.inf) -> list[Any]:
        try:
            return self.pipeline([("EVALSHA", script.sha, 1, args[0], *args) for args in calls], by=by)
        except NoScriptError:
            return self.pipeline([("EVAL", script.text, 1, args[0], *args) for args in calls], by=by)

    def run_then(self, script: Script, args: Sequence[Any], *after: Sequence[Any], by: float = math.inf) -> list[Any]:
        try:
            return self.pipeline([("EVALSHA", script.sha, 1, args[0], *args), *after], by=by)
        except NoScriptError:
            return self.pipeline([("EVAL", script.text, 1, args[0], *args), *after], by=by)


class ClusterClient(Client):
    """As `Client`, but of many servers. The connections are those of a client for each node."""

    def __init__(self, url: str, *, options: Mapping[str, Any], timeout: float, slots: Slots | None = None) -> None:
        scheme = url.partition("+")[0].lower()
        self._servers = several(url, scheme=scheme, port=PORT)
        super().__init__(self._servers.one, options=options, timeout=timeout)  # what is wrong with the URL is said now
        self._given, self.url = (url, options), masked(url)
        self._slots = slots or Slots(self._servers.hosts)
        self._nodes: dict[Address, NodeClient] = {}
        self._turns = count()

    def hurried(self, timeout: float) -> Client:
        url, options = self._given
        return ClusterClient(url, options=options, timeout=timeout, slots=self._slots)

    def _at(self, address: Address) -> NodeClient:
        node = self._nodes.get(address)
        if node is None:
            made = NodeClient(self._servers.at(address), options=self._given[1], timeout=self.timeout)
            node = self._nodes.setdefault(address, made)
        return node

    def _node(self, key: str) -> NodeClient:
        return self._at(self._slots.owner(key, self._ask_for_slots))

    def _ask_for_slots(self, address: Address) -> Any:
        with closing(self._at(address).hurried(self.timeout * LEARN_SHARE)) as node:
            return node.call("CLUSTER", "SLOTS")

    def _spread(self, keys: Sequence[str], things: Sequence[Any], ask: Ask, *, by: float = math.inf) -> list[Any]:
        """Send each of *things* to the node of its key; return the replies in their order.

        Of a node that turns away one of them, all are sent again: if they are of more than one key, they must be safe to repeat.
        """
        by, replies, left = min(by, time.monotonic() + self.timeout), [None] * len(things), list(range(len(things)))
        for turn in count():
            groups: dict[NodeClient, list[int]] = defaultdict(list)
            for i in left:
                groups[self._node(keys[i])].append(i)
            left, turned = [], None
            for node, group in groups.items():
                answers, refusal = self._asked(node, ask, [things[i] for i in group], by)
                if refusal is not None:
                    left, turned = left + group, refusal
                for i, answer in zip(group, answers, strict=False):
                    replies[i] = answer
            if turned is None:
                return replies
            if time.monotonic() + PAUSE > by:
                why = turned.__cause__ or turned
                raise BrokerUnavailable(
                    f"Redis Cluster at {self.url} did not take it within {self.timeout:g} s: {type(why).__name__} {why}. "
                    "A slot moves to another node, or has none. It will work when that has ended; see redis-cli --cluster check."
                )
            if turn or not isinstance(turned, MovedError):  # the first of these says where to go
                time.sleep(PAUSE)
        raise AssertionError("it counts for ever")

    def _asked(self, node: NodeClient, ask: Ask, things: list[Any], by: float) -> tuple[list[Any], Exception | None]:
        """Return what *node* answers, or why it turned them away."""
        try:
            return ask(node, things, by), None
        except MovedError as exc:
            self._slots.moved(exc.slot_id, (exc.host or str(dict(node.address)["host"]), exc.port))
            return [], exc
        except TURNED_AWAY as exc:
            self._slots.forget()
            return [], exc
        except BrokerUnavailable as exc:
            if exc.refused and "non local key" in str(exc):  # half of the keys of a script have moved, and it has written nothing yet
                return [], exc
            self._slots.forget()
            raise

    def _one(self, key: str, ask: Callable[[NodeClient, float], list[Any]], by: float = math.inf) -> list[Any]:
        """Ask the node of one key."""
        replies: list[Any] = self._spread([key], [None], lambda node, _, by: [ask(node, by)], by=by)[0]
        return replies

    def call(self, *command: Any, timeout: float | None = None) -> Any:
        return self._one(key_of(command), lambda node, by: node.pipeline([command], timeout=timeout, by=by))[0]

    def pipeline(self, commands: Sequence[Sequence[Any] | bytes], *, timeout: float | None = None, by: float = math.inf) -> list[Any]:
        """Send *commands*, which are all about the key of the first."""
        return self._one(key_of(commands[0]), lambda node, by: node.pipeline(commands, timeout=timeout, by=by), by)

    def say(self, channel: str, body: bytes) -> None:
        """Publish at the one node where `connect` listens: what two nodes pass on to a third comes there in any order."""
        self._one("", lambda node, by: node.pipeline([("PUBLISH", channel, body)], by=by))

    def now(self, near: str) -> tuple[int, int]:
        return self._node(near).now(near)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._spread(keys, keys, lambda node, some, by: node.pipeline([("GET", key) for key in some], by=by))

    def delete(self, keys: Sequence[str]) -> None:
        self._spread(keys, keys, lambda node, some, by: node.pipeline([("DEL", key) for key in some], by=by))

    def run_many(self, script: Script, calls: Sequence[Sequence[Any]], *, by: float = math.inf) -> list[Any]:
        return self._spread([args[0] for args in calls], calls, lambda node, some, by: node.run_many(script, some, by=by), by=by)

    def run_then(self, script: Script, args: Sequence[Any], *after: Sequence[Any], by: float = math.inf) -> list[Any]:
        """Run one script, then the commands *after*: those without a key in the same round trip, the others at their nodes."""
        here = [command for command in after if command[0] == "WAIT"]
        replies = self._one(args[0], lambda node, by: node.run_then(script, args, *here, by=by), by)
        return [*replies, *(self.call(*command) for command in after if command[0] != "WAIT")]

    def run_begun(self, begun: Begun, last: bytes, *after: Sequence[Any], by: float = math.inf) -> list[Any]:
        return self.run_then(begun.script, (*begun.args, last), *after, by=by)

    def run_after(self, first: Sequence[Any], script: Script, calls: Sequence[Sequence[Any]], *, timeout: float) -> list[Any]:
        """Wait at one of the keys of *first*, each in its turn, as a node can wait for one slot; then run the script for *calls*."""
        name, *keys, seconds = first
        return [self.call(name, keys[next(self._turns) % len(keys)], seconds, timeout=timeout), *self.run_many(script, calls)]

    @contextmanager
    def connection(self, near: str = "") -> Iterator[Any]:
        with self._node(near).connection() as connection:
            yield connection

    def connect(self, near: str = "") -> Any:
        return self._node(near).connect()

    def close(self) -> None:
        super().close()
        for node in list(self._nodes.values()):
            node.close()


def key_of(command: Any) -> str:
    """Return the key that a command is about; that of a PING may be any."""
    return str(command[1]) if len(command) > 1 else ""
