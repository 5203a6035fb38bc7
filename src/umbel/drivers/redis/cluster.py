"""Redis Cluster as broker and result backend: each queue lies in one slot, each result in its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from msgspec.structs import replace

from umbel.backend import Record, ResultBackend
from umbel.broker import BrokerFeatures, Delivery, Settlement, Verb
from umbel.drivers.redis.backend import RedisBackend, record_args
from umbel.drivers.redis.broker import RedisBroker
from umbel.drivers.redis.chunks import chunks
from umbel.drivers.redis.client import Script
from umbel.drivers.redis.flows import told_as_backend
from umbel.drivers.redis.keys import Keys
from umbel.exceptions import ImproperlyConfigured

__all__ = ["RedisClusterBackend", "RedisClusterBroker"]


class RedisClusterBroker(RedisBroker):
    """Messages in a Redis Cluster. What is of another slot than the queue cannot be part of the step that settles."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(atomic_settle=False)

    def _make_keys(self, queue: str) -> Keys:
        return Keys.in_one_slot(queue, prefix=self._prefix, steps=self._steps)

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        return super().fetch(queue, limit, owner=owner, seq=seq, settle=self._sent_on(settle), parked=parked)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return super().settle(self._sent_on(settlements))

    def _sent_on(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Publish what is retried on another queue, and acknowledge it instead.

        Invariant: it is published first. A crash in between leaves two copies, never none; a claim that is lost publishes nothing.
        """
        return [self._send_on(each) if goes_elsewhere(each) else each for each in settlements]

    def _send_on(self, settlement: Settlement) -> Settlement:
        delivery, replacement = settlement.delivery, settlement.replacement
        assert replacement is not None
        keys = self.keys(delivery.queue)
        held = self._client.pipeline([("ZSCORE", keys["owners"], delivery.owner), ("HEXISTS", keys.claims(delivery.owner), delivery.tag)])
        if all(held):
            self.publish([replacement])
        return replace(settlement, verb=Verb.ACK, replacement=None)

    def settles_with(self, backend: ResultBackend) -> bool:  # noqa: ARG002
        return False


def goes_elsewhere(settlement: Settlement) -> bool:
    """Answer whether a message is to be retried on another queue."""
    replacement = settlement.replacement
    return settlement.verb is Verb.RETRY and replacement is not None and replacement.queue != settlement.delivery.queue


class RedisClusterBackend(RedisBackend):
    """Results in a Redis Cluster. The flows are spread over as many slots as there are bases."""

    bases = 32
    # Celery's keys of a chord are of several slots.
    is_shared_with_celery: ClassVar[bool] = False
    counts_celery_chords: ClassVar[bool] = False

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        """See `RedisBackend`.

        Raises:
            ImproperlyConfigured: `global_keyprefix` has a hash tag that would scatter the keys of a workflow over slots.
        """
        check_prefix(str((options or {}).get("global_keyprefix", "")))
        super().__init__(url, options=options, timeout=timeout)

    def _base_of(self, flow: str) -> str:
        return self._base(zlib.crc32(flow.encode()) % self.bases)

    def _run_apart(self, script: Script, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [reply[0] for reply in self.client.run_many(script, items)]

    def store(self, records: Sequence[Record]) -> list[bool]:
        flags: list[bool] = []
        with told_as_backend():
            for chunk in chunks(records, lambda record: len(record.meta)):
                flags += [reply == [1] for reply in self.client.run_many(self._store, [record_args(self, record) for record in chunk])]
        return flags


def check_prefix(prefix: str) -> None:
    """Refuse a prefix with an empty hash tag: it hides ours. One like `{project}` puts all keys in one slot."""
    _, brace, rest = prefix.partition("{")
    if brace and rest.startswith("}"):
        raise ImproperlyConfigured(
            f"The global_keyprefix {prefix!r} has an empty hash tag: a Redis Cluster would put the keys of one workflow into different "
            "slots. Leave the braces out, or name a tag, such as '{project}': all keys are in one slot then."
        )
