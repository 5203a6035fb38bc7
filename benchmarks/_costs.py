"""What each call of the Redis driver costs the server, in CPU time, while many clients ask at once.

The bytes are those that the driver itself sends: it is asked for them and sends nothing. Then many connections send theirs before any of
them reads, so the server finds work whenever it looks, as under load. What it costs to be woken is measured by itself (`wake_up`):
where little happens, almost each call costs that, too. `herd` asks what up to a thousand idle workers ask, at their times.
"""
# What the driver would send is known only inside.
# ruff: noqa: SLF001

import heapq
import random
import selectors
import socket
import time
from urllib.parse import urlsplit

from umbel.backend import Record
from umbel.broker import Delivery, Item, Settlement, Verb
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.drivers.redis.broker import LONGEST_WAIT
from umbel.drivers.redis.client import packed
from umbel.states import SUCCESS
from umbel.tally import tally_of
from umbel.wire.message import glance
from umbel.worker.fetcher import WAIT

CONNECTIONS = 32
FEW, MANY = 1, 200  # messages in one call: the line through both gives what a call costs, and what each message in it
CALLS = 3_000
WAITED, RAN = 0.3, 0.0  # seconds: what is counted of each task (its tally). Those of one call are mostly alike
SHORTEST = 0.001  # seconds of a look
EVERY, RENEWAL = 1.0, 2.5  # seconds between the calls of services, and the default of worker_lease_renewal
QUEUE = "costs"
META = (
    b'{"status": "SUCCESS", "result": 1, "traceback": null, "children": [], "date_done": "2026-11-26T12:00:00.000000+00:00", '
    b'"task_id": "00000000-0000-4000-8000-000000000000", "fence": 1234567890123456}'
)


class RecordedError(Exception):
    """The commands that the driver would have sent."""

    def __init__(self, commands):
        self.count, self.data = len(commands), packed(commands)


class Herd:
    """Connections that ask at the same time."""

    def __init__(self, url, count=CONNECTIONS):
        import hiredis

        address = urlsplit(url)
        self.sockets = [socket.create_connection((address.hostname, address.port)) for _ in range(count)]
        self.readers = [hiredis.Reader() for _ in self.sockets]
        self.ask([(1, packed([("SELECT", int(address.path.strip("/") or 0))]))] * count)

    def ask(self, requests):
        """Send one request on each connection, then read what comes."""
        used = list(zip(self.sockets, self.readers, requests, strict=False))
        for sock, _, (_, data) in used:
            sock.sendall(data)
        for sock, reader, (count, _) in used:
            for _ in range(count):
                while (reply := reader.gets()) is False:
                    reader.feed(sock.recv(1 << 20))
                if isinstance(reply, Exception):
                    raise reply

    def close(self):
        """Close all."""
        for sock in self.sockets:
            sock.close()


class Driver:
    """The driver of one database, and what it would send."""

    def __init__(self, server):
        self.server, self.herd = server, Herd(server.url)
        self.broker = RedisBroker(server.url)
        self.backend = RedisBackend(server.url)
        self.broker.settles_with(self.backend)
        self.send = self.broker._client.pipeline
        self.owners = [f"owner-{number}" for number in range(CONNECTIONS)]
        self.seqs = [0] * CONNECTIONS
        for owner in self.owners:
            self.broker.join(owner, [QUEUE], lease=600)

    def recorded(self, function, *args, replies=(), **options):
        """What *function* would send first; when it is given *replies*, that and what follows on each of them."""
        sent, given = [], iter(replies)

        def record(commands, **_):
            sent.extend(commands)
            for reply in given:
                return reply
            raise RecordedError(sent)

        self.broker._client.pipeline = record
        try:
            function(*args, **options)
        except RecordedError as exc:
            return exc.count, exc.data
        finally:
            self.broker._client.pipeline = self.send
        raise AssertionError(function)

    def known(self, function, *args, **options):
        """Run *function* once, so that the server has its scripts."""
        function(*args, **options)

    def cost(self, rounds, make):
        """CPU us of one request of those that *make* gives for each connection, over so many rounds."""
        batches = [[make(number) for number in range(CONNECTIONS)] for _ in range(rounds)]
        before = self.server.cpu()
        for batch in batches:
            self.herd.ask(batch)
        return (self.server.cpu() - before) / (rounds * CONNECTIONS) * 1e6


def settlement(owner, tag, raw, *, results):
    """The acknowledgement of one message, and what is counted of its task."""
    tally = tally_of(glance(raw).task, SUCCESS, WAITED, RAN)
    record = Record(id=tag.replace(":", "-") + owner, state="SUCCESS", meta=META, fence=1234567890123456, expires=86400.0)
    delivery = Delivery(queue=QUEUE, tag=tag, owner=owner, raw=raw, fence=1)
    return Settlement(delivery=delivery, verb=Verb.ACK, records=(record,) if results else (), tally=tally)


def claims_and_settlements(driver, raw, count, *, results):
    """CPU us of a claim of *count* messages, of one on which as many settlements ride, and of a call that settles by itself."""
    broker, rounds = driver.broker, max(3, CALLS // CONNECTIONS // count)
    broker.publish([Item(raw=raw, queue=QUEUE, id="x") for _ in range(2 * count * CONNECTIONS * rounds)])

    def ended(n):
        tags = [f"{driver.seqs[n]}:{i}:0" for i in range(1, count + 1)]
        return [settlement(driver.owners[n], tag, raw, results=results) for tag in tags]

    def fetch(n, *, rides=False):
        settle = ended(n) if rides else ()
        driver.seqs[n] += 1
        return driver.recorded(broker.fetch, QUEUE, count, owner=driver.owners[n], seq=driver.seqs[n], settle=settle)

    claim = riding = settle = 0.0
    for _ in range(rounds):
        claim += driver.cost(1, fetch) / rounds
        riding += driver.cost(1, lambda n: fetch(n, rides=True)) / rounds
        settle += driver.cost(1, lambda n: driver.recorded(broker.settle, ended(n))) / rounds
    return claim, riding, settle


def line(few, many):
    """What a call costs, and what each message in it."""
    each = (many - few) / (MANY - FEW)
    return few - each * FEW, each


def measure(server, raw):
    """The CPU us of each kind of call, as JSON has it; *raw* is a message."""
    server.clear()
    driver = Driver(server)
    broker, item = driver.broker, Item(raw=raw, queue=QUEUE, id="x")
    driver.known(broker.publish, [item])
    for n, owner in enumerate(driver.owners):  # the scripts are known then
        driver.seqs[n] += 1
        broker.settle([settlement(owner, d.tag, raw, results=True) for d in broker.fetch(QUEUE, 1, owner=owner, seq=driver.seqs[n])])
    costs = {}
    for name, results in (("_result", True), ("", False)):
        few, many = (claims_and_settlements(driver, raw, count, results=results) for count in (FEW, MANY))
        claim, riding, settle = (line(*each) for each in zip(few, many, strict=True))
        costs["claim_call"], costs["claim"] = claim
        # What rides costs more for the first of them, as what is counted is written once in a call.
        costs["ride_call"], costs[f"ride{name}"] = (more - less for more, less in zip(riding, claim, strict=True))
        costs["settle_call"], costs[f"settle{name}"] = settle
    costs |= idle_calls(driver)
    costs["wake_up"] = wakes(driver) - costs["renew"]
    costs["publish"] = driver.cost(CALLS // CONNECTIONS, lambda _: driver.recorded(broker.publish, [item]))
    many = driver.cost(10, lambda _: driver.recorded(broker.publish, [item] * MANY, replies=[[MANY]]))  # then it rings
    costs["publish_of_many"] = many / MANY
    driver.herd.close()
    broker.close()
    return costs


def idle_calls(driver):
    """What workers ask again and again."""
    broker, rounds = driver.broker, CALLS // CONNECTIONS
    costs = {}

    def empty(n):
        driver.seqs[n] += 1
        return driver.recorded(broker.fetch, QUEUE, 500, owner=driver.owners[n], seq=driver.seqs[n])

    costs["empty_claim"] = driver.cost(rounds, empty)
    asked = {
        "renew": lambda n: (broker.renew, driver.owners[n], [QUEUE]),
        "promote": lambda _: (broker.promote, QUEUE),
        "revoked": lambda _: (broker.revoked_since, 0),
        "parked": lambda _: (broker.parked_for, QUEUE, ["t"]),
        "time": lambda _: (broker.recover, QUEUE),
    }
    for name, call in asked.items():
        options = {"renew": {"lease": 600}, "time": {"owner": "owner-0", "limit": 200}}.get(name, {})
        driver.known(*call(0), **options)
        costs[name] = driver.cost(rounds, lambda n, call=call, options=options: driver.recorded(*call(n), **options))
    costs["recover"] = driver.cost(rounds, lambda n: recover_of(driver, driver.owners[n]))
    costs["look"] = looks(driver)
    return costs


def recover_of(driver, owner):
    """The second thing that `recover` sends, after it has asked for the time."""
    client = driver.broker._client
    client.call, call = (lambda *_: [int(time.time()) + 100, 0]), client.call
    try:
        return driver.recorded(driver.broker.recover, QUEUE, owner=owner, limit=200)
    finally:
        client.call = call


def looks(driver, rounds=5):
    """A look of an idle worker: a BLPOP that ends by its time and what is asked then, in one round trip; of hundreds at once."""
    herd = Herd(driver.server.url, 300)
    driver.known(driver.broker.wait, "nobody", [QUEUE], SHORTEST)
    requests = [look(driver, f"nobody-{n}", LONGEST_WAIT) for n in range(300)]
    before = driver.server.cpu()
    for _ in range(rounds):
        herd.ask(requests)
    used = driver.server.cpu() - before
    herd.close()
    return used / rounds / 300 * 1e6


def look(driver, owner, left):
    """What an idle worker sends that still waits for *left* seconds."""
    return driver.recorded(driver.broker.wait, owner, [QUEUE], max(SHORTEST, left))


def wakes(driver, calls=300):
    """CPU us of a call to a server that sleeps."""
    request = driver.recorded(driver.broker.renew, driver.owners[0], [QUEUE], lease=600)
    before, begun = driver.server.cpu(), time.monotonic()
    for _ in range(calls):
        driver.herd.ask([request])
        time.sleep(0.002)
    used, seconds = driver.server.cpu() - before, time.monotonic() - begun
    before = driver.server.cpu()
    time.sleep(seconds)  # what it costs by itself
    return (used - (driver.server.cpu() - before)) / calls * 1e6


# --- a thousand idle workers


class IdleWorker:
    """The calls of a worker that finds nothing to do, as two connections make them: its fetcher's, and at their times its services'."""

    def __init__(self, driver, number):
        self.driver, self.owner, self.seq = driver, f"idle-{number}", 0
        self.phase = random.Random(number).random()  # no two workers are in step
        driver.broker.join(self.owner, [QUEUE], lease=600)

    def fetches(self):
        """Yield what is sent next, when the reply to the last is there: a claim, then looks, and so on."""
        longest = look(self.driver, self.owner, LONGEST_WAIT)  # as most are: this process must ask for a thousand
        yield time.monotonic() + WAIT * self.phase
        while True:
            self.seq += 1
            yield self.driver.recorded(self.driver.broker.fetch, QUEUE, 1, owner=self.owner, seq=self.seq)
            end = time.monotonic() + WAIT
            while (left := end - time.monotonic()) > 0:
                yield longest if left >= LONGEST_WAIT else look(self.driver, self.owner, left)

    def cares(self):
        """Yield what the services send, or a time before which they send nothing."""
        broker, recorded = self.driver.broker, self.driver.recorded
        calls = [(broker.promote, QUEUE), (broker.revoked_since, 0), (broker.parked_for, QUEUE, ["t"])]
        care = [*(recorded(*each) for each in calls), (1, packed([("TIME",)])), recover_of(self.driver, self.owner)]
        renew = recorded(broker.renew, self.owner, [QUEUE], lease=600)
        due = time.monotonic() + self.phase
        renewal = due + self.phase * RENEWAL
        while True:
            yield due
            yield from care
            due += EVERY
            if renewal < due:
                yield renewal
                yield renew
                renewal += RENEWAL


class Caller:
    """One connection of the herd, and whose calls it makes."""

    def __init__(self, sock, calls):
        import hiredis

        self.sock, self.calls, self.reader, self.left = sock, calls, hiredis.Reader(), 0

    def step(self):
        """Send the next call; return the time until when there is none."""
        what = next(self.calls)
        if isinstance(what, float):
            return what
        self.left, data = what
        self.sock.sendall(data)
        return None

    def read(self):
        """Return whether the replies to the last call are there."""
        self.reader.feed(self.sock.recv(1 << 16))
        while self.left and self.reader.gets() is not False:
            self.left -= 1
        return not self.left


def herd(server, count, seconds):
    """Share of a CPU, and round trips per second for each of *count* idle workers; all in this process, one thread."""
    server.clear()
    driver = Driver(server)
    workers, group, selector = (
        [IdleWorker(driver, number) for number in range(count)],
        Herd(server.url, 2 * count),
        selectors.EpollSelector(),
    )
    callers = [Caller(*each) for each in zip(group.sockets, [c for w in workers for c in (w.fetches(), w.cares())], strict=True)]
    for caller in callers:
        selector.register(caller.sock, selectors.EVENT_READ, caller)
    later, trips, begin, end = [(0.0, number) for number in range(len(callers))], 0, None, time.monotonic() + seconds + RENEWAL

    def go_on(number):
        if (until := callers[number].step()) is not None:
            heapq.heappush(later, (until, number))

    numbers = {caller: number for number, caller in enumerate(callers)}
    while (now := time.monotonic()) < end:
        while later and later[0][0] <= now:
            go_on(heapq.heappop(later)[1])
        for key, _ in selector.select(0.001):
            if key.data.read():
                trips += 1
                go_on(numbers[key.data])
        if begin is None and now > end - seconds:
            begin, trips = (now, server.cpu()), 0
    passed, used = time.monotonic() - begin[0], server.cpu() - begin[1]
    group.close()
    driver.herd.close()
    driver.broker.close()
    return {"workers": count, "redis_cpu_share": used / passed, "round_trips_per_worker": trips / passed / count}
