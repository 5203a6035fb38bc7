"""Results as messages to the process that sent the task: `rpc://`, as Celery has it. Nothing is kept for others."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import msgspec

from umbel.backend import Record, ResultBackend
from umbel.drivers.acceptance import may_replace
from umbel.drivers.amqp.channel import Channel, ChannelClosed, Pushed
from umbel.drivers.amqp.connection import Connection
from umbel.drivers.amqp.message import Sent
from umbel.drivers.amqp.nodes import Nodes, nodes_of
from umbel.drivers.amqp.properties import Properties
from umbel.drivers.amqp.publisher import Publisher
from umbel.drivers.without_flows import WithoutFlows
from umbel.exceptions import BackendUnavailable, BrokerUnavailable, NotSupported
from umbel.forks import process
from umbel.watch import Inbox, Watch

__all__ = ["AmqpBackend"]

logger = logging.getLogger("celery.worker")
UNUSED = 300_000  # milliseconds after which the queue of a process goes that died or lost its connection for so long
MOST, MOST_BYTES = 10_000, 32_000_000  # documents that a process keeps; the oldest go first
LOOK = 0.2  # seconds between two looks whether the connection is there
LONGEST_NAME = 255  # bytes of a queue's name


class Said(msgspec.Struct):
    """What of a document decides whether it may replace another."""

    status: str
    fence: int = 0


class Mailbox:
    """The queue of a process, and what came to it."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._documents: OrderedDict[str, Record] = OrderedDict()
        self._size, self._told = 0, False
        self._made: tuple[Connection, Channel] | None = None
        self.names: set[str] = set()
        self.watches: WeakSet[Inbox] = WeakSet()  # of those who wait

    def listen(self, deadline: float, *names: str) -> Connection:
        """Be ready for what comes to *names*, and to those of before.

        Raises:
            BrokerUnavailable: there is no server.
        """
        made = self._made
        if made is not None and made[0].lost is None and made[1].closed is None and self.names.issuperset(names):
            return made[0]
        with self._opening:
            made = self._made
            fresh = made is None or made[0].lost is not None or made[1].closed is not None
            if made is None or fresh:
                if made is not None:
                    made[0].drop()
                connection = self._nodes.connect(name="umbel results", deadline=deadline)
                made = connection, connection.channel(deadline)
                made[1].on_pushed = self._take
            try:
                for name in {*self.names, *names} if fresh else {*names} - self.names:
                    consume(made[1], name, deadline)
            except BaseException:
                made[0].drop()
                raise
            self._made = made
            self.names.update(names)
            return made[0]

    def _take(self, pushed: Pushed) -> None:
        task_id = str(pushed.properties.correlation_id or "")
        try:
            said = msgspec.json.decode(pushed.body, type=Said)
        except msgspec.MsgspecError:  # written by another serializer: the last that comes counts
            said = Said("")
        record = Record(id=task_id, state=said.status, meta=pushed.body, fence=said.fence)
        with self._lock:
            old = self._documents.get(task_id)
            if old is not None and not may_replace(record, old.state, old.fence):
                return
            self._drop(task_id)
            self._documents[task_id] = record
            self._size += len(record.meta)
            full = len(self._documents) > MOST or self._size > MOST_BYTES
            while len(self._documents) > 1 and (len(self._documents) > MOST or self._size > MOST_BYTES):
                self._drop(next(iter(self._documents)))
            for watch in list(self.watches):
                watch.put(task_id, record.meta)
            tell, self._told = full and not self._told, self._told or full
        if tell:
            logger.warning(
                "More results came to this process than it keeps (%d, or %d MB): the oldest are gone. Read them earlier, call forget(), "
                "or set ignore_result=True for tasks whose results nobody reads.", MOST, MOST_BYTES // 1_000_000,
            )  # fmt: skip

    def _drop(self, id: str) -> None:
        old = self._documents.pop(id, None)
        if old is not None:
            self._size -= len(old.meta)

    def find(self, id: str) -> bytes | None:
        """Return what came last for *id*."""
        with self._lock:
            found = self._documents.get(id)
            return None if found is None else found.meta

    def forget(self, ids: Sequence[str]) -> None:
        """Let go of what came for *ids*."""
        with self._lock:
            for task_id in ids:
                self._drop(task_id)

    def close(self) -> None:
        """Delete the queue, if the server is there, and close the connection."""
        made, self._made = self._made, None
        if made is not None:
            made[1].do([lambda pika, name=name: pika.queue_delete(name) for name in self.names])  # type: ignore[misc]
            made[0].close()

    def abandon(self) -> None:
        """Let go of the parent's connection, in its fork."""
        if self._made is not None:
            self._made[0].abandon()


def consume(channel: Channel, name: str, deadline: float) -> None:
    """Declare the queue *name*, and consume it."""
    arguments = {"x-expires": UNUSED}
    try:
        channel.ask(lambda pika, done: pika.queue_declare(name, durable=True, arguments=arguments, callback=done), deadline)
        channel.ask(lambda pika, done: pika.basic_consume(name, channel.on_message, auto_ack=True, callback=done), deadline)
    except ChannelClosed as exc:
        raise BrokerUnavailable(f"RabbitMQ refused the queue {name!r} for results: {exc}.", refused=True) from exc


class Parts:
    """All that holds a socket or a lock, of one process."""

    def __init__(self, nodes: Nodes) -> None:
        self.pid = process.pid
        self.mailbox, self.publisher = Mailbox(nodes), Publisher(nodes, "umbel results")


class AmqpBackend(WithoutFlows, ResultBackend):
    """A worker publishes documents to the queue that the request names; the process that sent the task consumes it."""

    lacks = "Results of rpc:// are messages, and nothing of a workflow is kept."

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0) -> None:
        self._nodes, self._timeout = nodes_of(url, options or {}), timeout
        self._content_type: str = (options or {}).get("content_type", "application/json")
        self._made: Parts | None = None
        self._pid, self._making = process.pid, threading.Lock()

    @property
    def _parts(self) -> Parts:
        made = self._made
        if made is not None and made.pid == process.pid:
            return made
        if self._pid != process.pid:  # a thread that held the lock does not exist in this process
            self._pid, self._making = process.pid, threading.Lock()
        with self._making:
            made = self._made
            if made is None or made.pid != process.pid:
                if made is not None:
                    abandon(made)
                made = self._made = Parts(self._nodes)
            return made

    def _deadline(self) -> float:
        return time.monotonic() + self._timeout

    def open(self) -> None:
        try:
            with self._parts.publisher.connection(self._deadline()):
                pass
        except BrokerUnavailable as exc:
            raise BackendUnavailable(str(exc)) from exc

    def close(self) -> None:
        made, self._made = self._made, None
        if made is None:
            return
        if made.pid != process.pid:
            abandon(made)
            return
        made.mailbox.close()
        made.publisher.close()

    def expect(self, reply_to: str) -> None:
        self._parts.mailbox.listen(self._deadline(), reply_to)

    def store(self, records: Sequence[Record]) -> list[bool]:
        batch = [self._sent(record) for record in records if 0 < len(record.reply_to.encode()) <= LONGEST_NAME]
        if batch:
            publisher, deadline = self._parts.publisher, self._deadline()
            try:
                with publisher.connection(deadline) as (_, channel):
                    publisher.publish(batch, channel, deadline, mandatory=False)  # who does not wait any more has no queue
            except BrokerUnavailable as exc:
                raise BackendUnavailable(str(exc)) from exc
        return [True] * len(records)

    def _sent(self, record: Record) -> Sent:
        encoding = "utf-8" if self._content_type in {"application/json", "application/x-yaml"} else "binary"
        properties = Properties(
            content_type=self._content_type, content_encoding=encoding, headers={}, delivery_mode=1, priority=0, correlation_id=record.id
        )
        return Sent("", record.reply_to, properties, record.meta, record.reply_to)

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        mailbox = self._parts.mailbox
        if mailbox.names:
            self._listening(mailbox)
        return [mailbox.find(task_id) for task_id in ids]

    def watch(self) -> Watch:
        return AmqpWatch(self, self._parts.mailbox)

    def _listening(self, mailbox: Mailbox) -> None:
        try:
            mailbox.listen(self._deadline())
        except BrokerUnavailable as exc:
            raise BackendUnavailable(str(exc)) from exc

    def forget(self, ids: Sequence[str]) -> None:
        self._parts.mailbox.forget(ids)

    def prune(self) -> int:
        return 0  # RabbitMQ deletes queues that nobody uses


class AmqpWatch(Inbox):
    """The mailbox puts in what comes."""

    def __init__(self, backend: AmqpBackend, mailbox: Mailbox) -> None:
        super().__init__()
        self._backend, self._mailbox = backend, mailbox
        mailbox.watches.add(self)

    def listen(self, ids: Sequence[str]) -> None:
        super().listen(ids)
        for task_id, document in zip(ids, self._backend.get(ids), strict=True):
            if document is not None:
                self.put(task_id, document)
            elif not self._mailbox.names:
                raise NotSupported(
                    f"The result of {task_id} cannot come to this process, which sent no task: with rpc:// a result goes to the process "
                    "that sent the task, and nowhere else. Read it there, or keep results in a store: "
                    "result_backend = 'redis://localhost:6379/0'."
                )

    def wait(self, timeout: float) -> Mapping[str, bytes]:
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            news = super().wait(max(0.0, min(LOOK, left)))
            if news or self.was_woken or left <= LOOK:
                return news
            self._backend.get([])  # connects again if the connection was lost: until then results wait in the queue

    def close(self) -> None:
        super().close()
        self._mailbox.watches.discard(self)


def abandon(parts: Parts) -> None:
    """Let go of a parent's connections, in its fork."""
    parts.mailbox.abandon()
    parts.publisher.abandon()
