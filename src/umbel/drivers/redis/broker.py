"""The Redis broker: kombu's lists, and beside each queue the tables of owners and claims (see `keys`)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count, groupby
from typing import Any, ClassVar, Literal

from msgspec.structs import replace

from umbel.backend import ResultBackend
from umbel.broker import (
    Broker,
    BrokerFeatures,
    DeadLetter,
    Delivery,
    Item,
    OwnerLost,
    QueueDepth,
    Recovered,
    Revocations,
    Settlement,
    Tally,
    Verb,
    encode_evidence,
    plain,
)
from umbel.clock import Clock
from umbel.drivers.acceptance import refuse_odd_times, refuse_using
from umbel.drivers.redis.backend import RedisBackend, record_args
from umbel.drivers.redis.chunks import CHUNK, chunks, grouped, size_of
from umbel.drivers.redis.client import Begun, Client, load_script
from umbel.drivers.redis.entries import letter_of, marked, name_of, unmarked
from umbel.drivers.redis.keys import DEFAULT_SEPARATOR, DEFAULT_STEPS, Keys, checked_steps, steps_of
from umbel.drivers.redis.opening import open_client
from umbel.drivers.redis.revoked import RevokedIds
from umbel.drivers.redis.tallies import count_tallies, tallies_of
from umbel.exceptions import BrokerUnavailable
from umbel.wire.marks import marks

__all__ = ["RedisBroker"]

VERBS = {Verb.ACK: "D", Verb.RETRY: "R", Verb.GIVE_BACK: "G", Verb.BURY: "B", Verb.PARK: "P", Verb.DELAY: "R"}
MOST_PUSHED = 1000  # messages in one LPUSH, which holds up the server for less than a script
MOST_PROMOTED = 1000  # messages in one step: a step holds up the server
RECOVERED = re.compile(rb"\d{13}:1:\d")  # tags of claims that were taken over (see recover.lua)
LONGEST_MEMORY = 10**13  # ms of a key, some hundred years: Redis refuses a time to live that its clock cannot hold
VALID = 500  # ms by the server's clock after which an order to recover is void
WAIT_SHARE = 0.5  # of the time for a call that replicas have: less than the reply has
LONGEST_WAIT = 0.095  # seconds until it looks for messages that rang no bell; Redis ends a wait at its ticks, mostly of 0.1 s


class RedisBroker(Broker):
    """Messages in Redis 6.2 or newer."""

    features: ClassVar[BrokerFeatures] = BrokerFeatures(atomic_settle=True)

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None, timeout: float = 2.0, clock: Clock | None = None) -> None:
        del clock  # every driver is handed one; here the server's decides
        options = options or {}
        self._client = open_client(url, options=options, timeout=timeout)
        self._prefix = str(options.get("global_keyprefix", ""))
        self._separator = str(options.get("sep", DEFAULT_SEPARATOR))
        self._steps = checked_steps(options.get("priority_steps", DEFAULT_STEPS))
        self._replicas = int(options.get("replicas", 0))  # that must have a message before it counts as published
        self._keys: dict[str, Keys] = {}
        self._pushes: dict[tuple[str, int], Begun] = {}
        self._revoked = RevokedIds(self._client, f"{self._prefix}{{umbel.revoked}}")
        self._backend: RedisBackend | None = None
        self._ends: dict[tuple[str, str], bytes] = {}  # (queue, owner) -> the end of its lease, as the server said
        self._numbers = count(time.time_ns() // 1000)  # of recoveries: no driver of the same owner begins with smaller ones
        self._unanswered: dict[tuple[str, str], int] = {}
        names = ("any", "publish", "publish_once", "fetch", "settle", "renew", "leave", "recover", "mark_started", "promote", "depth")
        self._scripts = {name: load_script(name) for name in names}
        self._scripts |= {name: load_script(name) for name in ("letters", "parked_for", "requeue", "discard", "purge")}
        self._scripts |= {name: load_script(name, shared=("_ring",)) for name in ("publish_now", "ring")}

    def open(self) -> None:
        self._client.call("PING")

    def close(self) -> None:
        self._client.close()

    def keys(self, queue: str) -> Keys:
        """Return the names of the keys of *queue*."""
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = self._make_keys(queue)
        return keys

    def _make_keys(self, queue: str) -> Keys:
        return Keys.of(queue, prefix=self._prefix, separator=self._separator, steps=self._steps)

    def _run(self, script: str, *args: Any) -> Any:
        return self._client.run(self._scripts[script], *args)

    def publish(self, items: Sequence[Item], *, timeout: float | None = None, using: object = None) -> None:
        refuse_using(using, "redis")
        refuse_odd_times(items)
        client = self._client if timeout is None else self._client.hurried(timeout)
        try:
            if len(items) == 1 and items[0].due is None and not items[0].once:  # as of delay(), which need not be sorted and cut
                self._push_one(client, items[0].queue, items[0].priority, items[0].raw)
            else:
                self._publish(client, items)
        finally:
            if timeout is not None:
                client.close()

    def _publish(self, client: Client, items: Sequence[Item]) -> None:
        by, begun = time.monotonic() + client.timeout, False
        for (queue, how, priority), group in grouped(items).items():
            for chunk in chunks(group, lambda item: len(item.raw), CHUNK if how else MOST_PUSHED):
                if begun and time.monotonic() > by:
                    raise BrokerUnavailable(f"Redis at {client.url} did not take all within {client.timeout:g} s.", maybe_sent=True)
                try:
                    if how == "once":
                        self._store(client, "publish_once", [arg for item in chunk for arg in self._once_args(item)], by)
                    elif how:
                        self._store(client, "publish", [arg for item in chunk for arg in self._push_args(item)], by)
                    else:
                        self._push(client, queue, priority, [item.raw for item in chunk], by)
                except BrokerUnavailable as exc:
                    exc.maybe_sent = exc.maybe_sent or begun  # what came before this chunk is stored
                    raise
                begun = True

    def _push_one(self, client: Client, queue: str, priority: int, raw: bytes, by: float = math.inf) -> None:
        begun = self._pushes.get((queue, priority))
        if begun is None:
            keys = self.keys(queue)
            args = keys.base, keys.ready[steps_of(self._steps, priority)]
            begun = self._pushes[queue, priority] = Begun(self._scripts["publish_now"], args)
        self._insist(client, client.run_begun(begun, raw, *self._confirmation(client), by=by))

    def _push(self, client: Client, queue: str, priority: int, raws: list[bytes], by: float) -> None:
        if len(raws) == 1:
            self._push_one(client, queue, priority, raws[0], by)
            return
        keys = self.keys(queue)
        ready = keys.ready[steps_of(self._steps, priority)]
        # a script would copy every message twice more
        self._insist(client, client.pipeline([("LPUSH", ready, *raws), *self._confirmation(client)], by=by))
        with suppress(BrokerUnavailable):  # they are stored: who misses the bell finds them within LONGEST_WAIT
            client.run_many(self._scripts["ring"], [(keys.base, len(raws))], by=by)

    def _store(self, client: Client, script: str, args: Sequence[Any], by: float) -> None:
        self._insist(client, client.run_then(self._scripts[script], args, *self._confirmation(client), by=by))

    def _confirmation(self, client: Client) -> Sequence[Sequence[Any]]:
        """Return the command that waits for replicas, if the user wants it; it is about what its own connection wrote."""
        return (("WAIT", self._replicas, int(client.timeout * WAIT_SHARE * 1000)),) if self._replicas else ()

    def _insist(self, client: Client, replies: Sequence[Any]) -> None:
        """Raise if too few replicas have what was written."""
        if self._replicas and replies[-1] < self._replicas:
            raise BrokerUnavailable(
                f"Redis at {client.url} has the message, but {replies[-1]} instead of {self._replicas} replicas confirmed it within "
                f"{client.timeout * WAIT_SHARE:g} s. Look at its replicas, or lower replicas in broker_transport_options.",
                maybe_sent=True,
            )

    def _push_args(self, item: Item) -> tuple[Any, ...]:
        keys, step = self.keys(item.queue), steps_of(self._steps, item.priority)
        return keys.base, keys.ready[step], milliseconds(item.due), step, item.raw

    def _once_args(self, item: Item) -> tuple[Any, ...]:
        return *self._push_args(item), item.once, max(1, int(min(item.once_for * 1000, LONGEST_MEMORY)))

    def join(self, owner: str, queues: Sequence[str], *, lease: float) -> None:
        if not all(self._renew(owner, queues, lease, join=True)):
            raise OwnerLost(owner)

    def renew(self, owner: str, queues: Sequence[str], *, lease: float) -> bool:
        return all(self._renew(owner, queues, lease, join=False))

    def _renew(self, owner: str, queues: Sequence[str], lease: float, *, join: bool) -> list[Any]:
        known = [self._ends.get((queue, owner), b"0") for queue in queues]
        calls = [(self.keys(queue).base, owner, int(lease * 1000), int(join), end) for queue, end in zip(queues, known, strict=True)]
        replies = self._client.run_many(self._scripts["renew"], calls)
        self._ends |= {(queue, owner): reply[0] for queue, reply in zip(queues, replies, strict=True) if reply}
        if any(reply and reply[1] for reply in replies):
            # As after an outage: the others must have had the time to renew in this table before somebody looks for the dead.
            raise BrokerUnavailable(
                f"Redis at {self._client.url} has gone back to an older state of its data: a replica took over that lagged, or it started "
                "from an old snapshot. What was acknowledged since then runs again, and what was published since then is lost."
            )
        return replies

    def leave(self, owner: str, queues: Sequence[str]) -> None:
        for queue in queues:
            self._ends.pop((queue, owner), None)
            self._give_back_recovered(queue, owner)
        left = list(queues)
        while left:
            calls = [(self.keys(queue).base, "\0".join(self.keys(queue).ready), owner) for queue in left]
            left = [q for q, claims in zip(left, self._client.run_many(self._scripts["leave"], calls), strict=True) if claims]

    def _give_back_recovered(self, queue: str, owner: str) -> None:
        """Give back what was taken over, with what is known of its death: the script gives messages back as they are."""
        claims = self.keys(queue).claims(owner)
        if self._client.call("HEXISTS", claims, "recovered"):
            fields = set(self._client.call("HKEYS", claims))
            taken = sorted(tag for tag in fields if RECOVERED.fullmatch(tag))
            sizes = dict(zip(taken, self._client.pipeline([("HSTRLEN", claims, tag) for tag in taken]), strict=True))
            for tags in chunks(taken, sizes.__getitem__):  # the newest first: each goes to the head
                found = zip(tags, self._client.call("HMGET", claims, *tags), strict=True)
                deliveries = [self._recovered(queue, owner, tag, raw, b"s:" + tag in fields, 0) for tag, raw in found if raw is not None]
                backs = [Settlement(delivery=d, verb=Verb.GIVE_BACK, attempts=d.attempts, suspect=d.suspect) for d in deliveries]
                self.settle(backs[::-1])

    def fetch(
        self, queue: str, limit: int, *, owner: str, seq: int, settle: Sequence[Settlement] = (), parked: Sequence[str] = ()
    ) -> list[Delivery]:
        keys = self.keys(queue)
        tasks = [plain(task) for task in dict.fromkeys(parked)]
        args: list[Any] = [keys.base, "\0".join(keys.ready), owner, seq, min(limit, 1000), len(tasks), *tasks, len(settle)]
        for i in sequence(settle):
            args += self._settle_args(settle[i])
        # Invariant: the mark is read after the claim; what was revoked before the claim is then never overlooked.
        reply, mark = self._client.run_then(self._scripts["fetch"], args, ("GET", self._revoked.key))
        if reply is None:
            raise OwnerLost(owner)
        fence, revocations = int(reply[0]), int(mark or 0)
        return [self._delivery(queue, owner, reply[i], reply[i + 1], fence, revocations) for i in range(2, len(reply), 2)]

    @staticmethod
    def _delivery(queue: str, owner: str, tag: bytes, raw: bytes, fence: int, revocations: int = 0) -> Delivery:
        attempts, suspect = marks(raw)
        return Delivery(
            queue=queue, tag=tag.decode(), owner=owner, raw=raw, fence=fence, attempts=attempts, suspect=suspect, revocations=revocations
        )

    def wait(self, owner: str, queues: Sequence[str], timeout: float) -> None:
        bells = [self.keys(queue).bell(owner) for queue in queues]
        looks = [(self.keys(queue).base, "\0".join(self.keys(queue).ready)) for queue in queues]
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            seconds = max(0.001, min(left, LONGEST_WAIT))
            # Then it looks for messages, as some have rung no bell: those of foreign producers, and such as have become due.
            heard = self._client.run_after(("BLPOP", *bells, seconds), self._scripts["any"], looks, timeout=seconds + self._client.timeout)
            if any(heard):
                return

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        outcomes: dict[int, bool] = {}
        order = sorted(sequence(settlements), key=lambda i: (settlements[i].delivery.queue, settlements[i].delivery.owner))
        for (queue, owner), run in groupby(order, key=lambda i: (settlements[i].delivery.queue, settlements[i].delivery.owner)):
            for chunk in chunks(((i, self._settle_args(settlements[i])) for i in run), lambda each: size_of(each[1])):
                flags = self._settle_chunk(queue, owner, [args for _, args in chunk])
                outcomes.update(zip((i for i, _ in chunk), flags, strict=True))
        return [outcomes[i] for i in range(len(settlements))]

    def _settle_chunk(self, queue: str, owner: str, settlements: Sequence[Sequence[Any]]) -> Iterable[bool]:
        keys = self.keys(queue)
        flags = self._run("settle", keys.base, "\0".join(keys.ready), owner, len(settlements), *chain.from_iterable(settlements))
        return [False] * len(settlements) if flags is None else [flag == 1 for flag in flags]

    def _settle_args(self, settlement: Settlement) -> list[Any]:
        delivery, verb = settlement.delivery, settlement.verb
        if verb is Verb.ACK and not settlement.records and not settlement.follow_ups:
            return [delivery.tag, "A" + settlement.tally]
        fields: tuple[Any, ...] = ()
        if verb is Verb.RETRY:
            assert settlement.replacement is not None
            fields = self._push_args(settlement.replacement)
        elif verb is Verb.DELAY:
            keys, step = self.keys(delivery.queue), delivery.tag.rpartition(":")[2]
            fields = (keys.base, keys.ready[int(step)], milliseconds(settlement.due), step, settlement.raw or delivery.raw)
        elif verb is Verb.GIVE_BACK:
            fields = (delivery.tag.rpartition(":")[2], marked(delivery, settlement))
        elif verb in {Verb.BURY, Verb.PARK}:
            reason, evidence = plain(settlement.reason), encode_evidence(settlement.evidence)
            fields = (plain(name_of(delivery.raw)), reason, evidence, delivery.raw)
        args = [delivery.tag, VERBS[verb] + settlement.tally, len(fields), *fields, len(settlement.records)]
        for record in settlement.records:
            assert self._backend is not None, "records ride only after settles_with() said yes"
            args += record_args(self._backend, record)
        args.append(len(settlement.follow_ups))
        for item in settlement.follow_ups:
            args += self._push_args(item)
        return args

    def tallies(self, queue: str, *, since: float) -> list[Tally]:
        return tallies_of(self._client, self.keys(queue).base, since)

    def count(self, queue: str, tallies: Mapping[str, int]) -> None:
        count_tallies(self._client, self.keys(queue).base, tallies)

    def recover(self, queue: str, *, owner: str, limit: int) -> Recovered:
        # A server that was frozen carries out late what was sent before: by then owners that live may have missed a renewal.
        seconds, micros = self._client.now(self.keys(queue).base)
        until = seconds * 1000 + micros // 1000 + VALID
        number = self._unanswered.pop((queue, owner), None) or next(self._numbers)
        try:
            reply = self._run(
                "recover", self.keys(queue).base, owner, min(limit, CHUNK), until, number, self._ends.get((queue, owner), b"0")
            )
        except BrokerUnavailable:  # perhaps it was carried out: the next call asks for what it took
            self._unanswered[queue, owner] = number
            raise
        if reply is None:
            raise OwnerLost(owner)
        taken = [self._recovered(queue, owner, reply[i], reply[i + 2], reply[i + 1] == 1, int(reply[0])) for i in range(2, len(reply), 3)]
        return Recovered(deliveries=taken[::-1], more=reply[1] == 1)  # the script takes the newest first

    def _recovered(self, queue: str, owner: str, tag: bytes, raw: bytes, started: bool, fence: int) -> Delivery:
        """Make the delivery of a message that was taken over: a start that was marked costs an attempt."""
        delivery = self._delivery(queue, owner, tag, raw, fence)
        return replace(delivery, attempts=delivery.attempts + started, suspect=not started)

    def mark_started(self, delivery: Delivery) -> bool:
        return bool(self._run("mark_started", self.keys(delivery.queue).base, delivery.owner, delivery.tag))

    def promote(self, queue: str, *, limit: int = 1000) -> float | None:
        keys = self.keys(queue)
        due = self._run("promote", keys.base, "\0".join(keys.ready), min(limit, MOST_PROMOTED))
        return None if due is None else float(due) / 1000

    def depth(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        calls = [(self.keys(q).base, "\0".join(self.keys(q).ready)) for q in queues]
        replies = self._client.run_many(self._scripts["depth"], calls)
        names = ("ready", "delayed", "claimed", "parked", "dead")
        return {q: QueueDepth(**dict(zip(names, reply, strict=True))) for q, reply in zip(queues, replies, strict=True)}

    def purge(self, queue: str) -> int:
        keys = self.keys(queue)
        return int(self._run("purge", keys.base, "\0".join(keys.ready)))

    def dead(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        return self._letters(queue, "dead", limit, after, id)

    def parked(self, queue: str, *, limit: int = 100, after: str = "", id: str = "") -> list[DeadLetter]:
        return self._letters(queue, "parked", limit, after, id)

    def _letters(self, queue: str, place: Literal["dead", "parked"], limit: int, after: str, id: str) -> list[DeadLetter]:
        found = self._run("letters", self.keys(queue).base, place, after, plain(id), min(limit, CHUNK))
        return [letter_of(queue, place, name, data) for name, data in zip(found[::2], found[1::2], strict=True)]

    def parked_for(self, queue: str, tasks: Sequence[str]) -> list[str]:
        keys = self.keys(queue)
        if not tasks or not self._client.call("ZCARD", keys["parked"]):
            return []
        found: list[str] = []
        for start in range(0, len(tasks), CHUNK):
            some = tasks[start : start + CHUNK]
            found += [some[i] for i in self._run("parked_for", keys.base, *map(plain, some))]
        return found

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        moved = 0
        for keys, place, some in self._by_place(letters):
            pairs = (arg for letter in some for arg in (letter.key, unmarked(letter.raw)))
            moved += self._run("requeue", keys.base, "\0".join(keys.ready), place, *pairs)
        return moved

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        return sum(self._run("discard", keys.base, place, *(each.key for each in some)) for keys, place, some in self._by_place(letters))

    def _by_place(self, letters: Sequence[DeadLetter]) -> Iterator[tuple[Keys, str, list[DeadLetter]]]:
        """Cut *letters* into what one script may take away."""
        for (queue, place), run in groupby(letters, key=lambda letter: (letter.queue, letter.place)):
            for some in chunks(run, lambda letter: len(letter.raw)):
                yield self.keys(queue), place, some

    def revoke(self, ids: Sequence[str], *, ttl: float, signal: str = "") -> None:
        self._revoked.add(ids, ttl=ttl, signal=signal)

    def revoked_since(self, mark: int) -> Revocations:
        return self._revoked.since(mark)

    def settles_with(self, backend: ResultBackend) -> bool:
        if isinstance(backend, RedisBackend) and backend.client.address == self._client.address:
            self._backend = backend
            return True
        return False


def milliseconds(due: float | None) -> str:
    """Return a due time as the scripts read it, not rounded down: nothing starts early."""
    return "" if due is None else f"{due * 1000:.3f}"


def sequence(settlements: Sequence[Settlement]) -> list[int]:
    """Return in which order to carry out *settlements*: what is given back comes last and reversed, as each goes to the head."""
    given_back = [i for i, each in enumerate(settlements) if each.verb is Verb.GIVE_BACK]
    others = [i for i, each in enumerate(settlements) if each.verb is not Verb.GIVE_BACK]
    return others + given_back[::-1]
