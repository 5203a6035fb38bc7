"""What each call of the Redis driver costs the server, in CPU time, while many clients ask at once.

The bytes are those that the driver itself sends: it is asked for them and sends nothing. Then many connections send theirs before any of
them reads, so the server finds work whenever it looks, as under load. What it costs to be woken is measured by itself (`wake_up`):
where little happens, almost each call costs that, too. `herd` has a thousand connections that ask what idle workers ask.
"""
# What the driver would send is known only inside.
# ruff: noqa: SLF001

import selectors
import socket
import time
from urllib.parse import urlsplit

from umbel.backend import Record
from umbel.broker import Delivery, Item, Settlement, Verb
from umbel.drivers.redis import RedisBackend, RedisBroker
from umbel.drivers.redis.broker import LONGEST_WAIT
from umbel.drivers.redis.client import packed
from umbel.worker.fetcher import WAIT

CONNECTIONS = 32
FEW, MANY = 1, 200  # messages in one call: the line through both gives what a call costs, and what each message in it
CALLS = 3_000
RENEWAL = 2.5  # seconds, the default of worker_lease_renewal
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

    def recorded(self, function, *args, **options):
        """What *function* would send first."""

        def record(commands, **_):
            raise RecordedError(commands)

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
    """The acknowledgement of one message."""
    record = Record(id=tag.replace(":", "-") + owner, state="SUCCESS", meta=META, fence=1234567890123456, expires=86400.0)
    delivery = Delivery(queue=QUEUE, tag=tag, owner=owner, raw=raw, fence=1)
    return Settlement(delivery=delivery, verb=Verb.ACK, records=(record,) if results else ())


def claims_and_settlements(driver, raw, count, *, results):
    """CPU us of a claim of *count* messages, and of a call that settles them, measured by themselves."""
    broker, rounds = driver.broker, max(3, CALLS // CONNECTIONS // count)
    broker.publish([Item(raw=raw, queue=QUEUE, id="x") for _ in range(count * CONNECTIONS * rounds)])
    claim = settle = 0.0
    for _ in range(rounds):
        driver.seqs = [seq + 1 for seq in driver.seqs]

        def fetch(n):
            return driver.recorded(broker.fetch, QUEUE, count, owner=driver.owners[n], seq=driver.seqs[n])

        def ack(n):
            tags = [f"{driver.seqs[n]}:{i}:0" for i in range(1, count + 1)]
            return driver.recorded(broker.settle, [settlement(driver.owners[n], tag, raw, results=results) for tag in tags])

        claim += driver.cost(1, fetch) / rounds
        settle += driver.cost(1, ack) / rounds
    return claim, settle


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
    for name, results in (("", False), ("_result", True)):
        (few, few_settled), (many, many_settled) = (claims_and_settlements(driver, raw, count, results=results) for count in (FEW, MANY))
        costs["settle_call"], costs[f"settle{name}"] = line(few_settled, many_settled)
        costs["claim_call"], costs["claim"] = line(few, many)
    costs |= idle_calls(driver)
    costs["wake_up"] = wakes(driver) - costs["any"]
    costs["publish"] = driver.cost(CALLS // CONNECTIONS, lambda _: driver.recorded(broker.publish, [item]))
    many = driver.cost(10, lambda _: driver.recorded(broker.publish, [item] * MANY))
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
        "any": lambda _: (broker._any, [QUEUE]),
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
    costs["blpop"] = waits(driver)
    return costs


def recover_of(driver, owner):
    """The second thing that `recover` sends, after it has asked for the time."""
    client = driver.broker._client
    client.call, call = (lambda *_: [int(time.time()) + 100, 0]), client.call
    try:
        return driver.recorded(driver.broker.recover, QUEUE, owner=owner, limit=200)
    finally:
        client.call = call


def waits(driver, rounds=5, seconds=0.1):
    """A BLPOP that ends by its time, of hundreds of clients at once."""
    herd = Herd(driver.server.url, 300)
    requests = [(1, packed([("BLPOP", driver.broker.keys(QUEUE).bell(f"nobody-{n}"), seconds)])) for n in range(300)]
    before = driver.server.cpu()
    for _ in range(rounds):
        herd.ask(requests)
    used = driver.server.cpu() - before
    herd.close()
    return used / rounds / 300 * 1e6


def wakes(driver, calls=300):
    """CPU us of a call to a server that sleeps."""
    request = driver.recorded(driver.broker._any, [QUEUE])
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
    """The calls of a worker that finds nothing to do: the ring that its fetcher goes, and once a second those of its services."""

    def __init__(self, driver, number):
        self.driver, self.owner, self.seq = driver, f"idle-{number}", 0
        driver.broker.join(self.owner, [QUEUE], lease=600)
        broker = driver.broker
        bell = broker.keys(QUEUE).bell(self.owner)
        self.bell, self.any = bell, driver.recorded(broker._any, [QUEUE])
        care = [(broker.promote, QUEUE), (broker.revoked_since, 0), (broker.parked_for, QUEUE, ["t"])]
        self.care = [*(driver.recorded(*each) for each in care), (1, packed([("TIME",)])), recover_of(driver, self.owner)]
        self.renew = driver.recorded(broker.renew, self.owner, [QUEUE], lease=600)
        self.calls = self.forever()

    def forever(self):
        """Yield what is sent next, when the reply to the last is there."""
        cared = renewed = time.monotonic()
        while True:
            self.seq += 1
            yield self.driver.recorded(self.driver.broker.fetch, QUEUE, 1, owner=self.owner, seq=self.seq)
            now = time.monotonic()
            if now - cared > 1:
                cared += 1
                yield from self.care
            if now - renewed > RENEWAL:
                renewed += RENEWAL
                yield self.renew
            end = time.monotonic() + WAIT
            while (left := end - time.monotonic()) > 0:  # as RedisBroker.wait
                yield 1, packed([("BLPOP", self.bell, max(0.001, min(left, LONGEST_WAIT)))])
                yield self.any


def herd(server, count, seconds):
    """Share of a CPU, round trips per second and the largest pause of *count* idle workers; all in this process, one thread."""
    import hiredis

    server.clear()
    driver = Driver(server)
    workers, group, selector = [IdleWorker(driver, number) for number in range(count)], Herd(server.url, count), selectors.EpollSelector()
    for worker, sock in zip(workers, group.sockets, strict=True):
        selector.register(sock, selectors.EVENT_READ, [worker, hiredis.Reader(), 0])
    trips, begin, end = 0, None, time.monotonic() + seconds + 1
    started = iter(selector.get_map().values())
    while (now := time.monotonic()) < end:
        for key in [each for each in (next(started, None) for _ in range(10)) if each]:  # not all at once
            step(key)
        for key, _ in selector.select(0.001):
            key.data[1].feed(key.fileobj.recv(1 << 16))
            while key.data[2] and key.data[1].gets() is not False:
                key.data[2] -= 1
            if not key.data[2]:
                trips += 1
                step(key)
        if begin is None and now > end - seconds:
            begin, trips = (now, server.cpu()), 0
    passed, used = time.monotonic() - begin[0], server.cpu() - begin[1]
    group.close()
    return {"workers": count, "redis_cpu_share": used / passed, "round_trips_per_worker": trips / passed / count}


def step(key):
    """Send the next call of a worker."""
    key.data[2], data = next(key.data[0].calls)
    key.fileobj.sendall(data)
