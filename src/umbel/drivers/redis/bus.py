"""The bus on Redis: its publish and subscribe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from umbel.bus import Bus, Heard, Subscription
from umbel.drivers.redis.client import FAULTS
from umbel.drivers.redis.opening import open_client
from umbel.exceptions import BrokerUnavailable

__all__ = ["RedisBus"]


class RedisBus(Bus):
    """Topics are channels."""

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._client = open_client(url, options=options or {}, timeout=timeout)
        self._prefix = str((options or {}).get("global_keyprefix", ""))

    def publish(self, topic: str, body: bytes) -> None:
        self._client.say(self._prefix + topic, body)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return RedisSubscription(self._client.connect(), self._prefix, topics, self._client.url)

    def close(self) -> None:
        self._client.close()


class RedisSubscription(Subscription):
    """A connection of its own."""

    def __init__(self, connection: Any, prefix: str, topics: Sequence[str], url: str) -> None:
        self._connection, self._prefix, self._url = connection, len(prefix), url
        try:
            connection.send_command("PSUBSCRIBE", *(prefix + pattern(topic) for topic in topics))
            for _ in topics:
                connection.read_response(disable_decoding=True)
        except FAULTS as exc:
            connection.disconnect()
            raise BrokerUnavailable(f"Redis at {url} was lost while subscribing: {exc}.") from exc

    def receive(self, timeout: float) -> Heard | None:
        deadline = time.monotonic() + timeout
        try:
            while self._connection.can_read(max(0.0, deadline - time.monotonic())):
                kind, _, channel, body = self._connection.read_response(disable_decoding=True)
                if kind == b"pmessage":
                    return Heard(channel.decode()[self._prefix :], body)
        except FAULTS as exc:
            raise BrokerUnavailable(f"Redis at {self._url} was lost while listening: {exc}. Subscribe again.") from exc
        return None

    def close(self) -> None:
        with suppress(*FAULTS):
            self._connection.disconnect()


def pattern(topic: str) -> str:
    """Return *topic* as Redis's pattern: only a `*` at its end is one."""
    plain = topic.removesuffix("*")
    escaped = "".join(f"\\{character}" if character in "*?[]\\^" else character for character in plain)
    return escaped + "*" * (len(topic) - len(plain))
