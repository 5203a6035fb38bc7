"""The model behind `simulate.py`: events in the order of their time; one Redis that serves calls one by one, and workers as they are built.

What is modelled is what the code does: `Inflight.room` (how much a claim asks for), packets, when an outcome comes back, which settlements
ride on a claim and which go by themselves as none has come within `LINGER`, and what an idle worker asks, each look in one round trip. What
costs time is handed in (`Costs`).
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import count

from umbel.drivers.redis.broker import LONGEST_WAIT
from umbel.execution.settle import BATCH, LINGER
from umbel.pools.child import FLUSH_AFTER
from umbel.worker.fetcher import FLOW, WAIT
from umbel.worker.inflight import COARSE, HORIZON, MOST, PACKET_JOBS, PACKET_SECONDS, QUICKEST, SHORT, WORTH

RENEWAL, EVERY = 2.5, 1.0  # seconds: of the lease; of what looks after delayed, dead, parked and revoked messages
FEEDS_WITHIN = 0.05  # seconds after a claim in which producers have replaced what was claimed,
FEEDS_AT_ONCE = 10  # so many of them at a time, each with a call of its own
TICK = 0.1  # seconds between two times when a Redis that has nothing to do looks whose waiting is over (its `hz` is 10)
WAKES_AFTER = 1e-4  # seconds that the server must have had nothing to do before it sleeps, and being woken costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of CPU time, unless said otherwise; those on Redis by the names of `_costs.py`."""

    claim_call: float
    claim: float
    ride_call: float  # of all settlements that ride on a claim
    ride: float  # of each of them
    settle_call: float
    settle: float
    empty_claim: float
    publish: float
    look: float
    renew: float
    promote: float
    revoked: float
    parked: float
    time: float
    recover: float
    wake_up: float
    parent: float  # of a worker's parent, for each message: half of it before the task and half after
    parent_wake_up: float  # of the same, when it slept: threads and loop wake one another
    child: float  # of the process that runs the task, beside the task
    network: float  # seconds of a round trip in which nobody works


class Cores:
    """CPUs that all share in equal parts; None: there are enough for everybody."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.jobs, self.since, self.plan = {}, 0.0, 0  # what is under way -> seconds that are left

    @property
    def speed(self):
        """Of each job."""
        return min(1.0, self.number / len(self.jobs)) if self.jobs else 1.0

    def run(self, seconds, then):
        """Work for so long, and call *then*."""
        if self.number is None:
            self.world.at(self.world.now + seconds, then)
            return
        self.go_on()
        self.jobs[then, next(self.world.numbers)] = seconds
        self.look()

    def go_on(self):
        """Take off what was done since the last look."""
        done, self.since = (self.world.now - self.since) * self.speed, self.world.now
        for job in self.jobs:
            self.jobs[job] -= done

    def look(self):
        """Come back when the next job is done, unless another comes before."""
        self.plan += 1
        if self.jobs:
            self.world.at(self.world.now + max(0.0, min(self.jobs.values())) / self.speed, self.tick, self.plan)

    def tick(self, plan):
        """End what is done."""
        if plan != self.plan:
            return
        self.go_on()
        done = [job for job, left in self.jobs.items() if left <= 1e-9]
        for job in done:
            del self.jobs[job]
        self.look()
        for then, _ in done:
            then()


class Serial:
    """Who does one thing at a time: Redis, a worker's parent, a process that runs tasks."""

    def __init__(self, world, wake_up=0.0):
        self.world, self.wake_up = world, wake_up
        self.queue, self.works, self.since, self.busy, self.woken = deque(), False, 0.0, 0.0, 0

    def do(self, seconds, then, *args):
        """Work for so long when it is our turn, and call *then*."""
        self.queue.append((seconds, then, args))
        if not self.works:
            self.start()

    def start(self):
        """Begin the next."""
        seconds, then, args = self.queue.popleft()
        if self.world.now - self.since > WAKES_AFTER:
            seconds += self.wake_up
            self.woken += 1

        def done():
            self.works, self.since, self.busy = False, self.world.now, self.busy + seconds
            if self.queue:
                self.start()
            else:
                self.served()
            then(*args)

        self.works = True
        self.world.cores.run(seconds, done)

    def served(self):
        """Do what is done when nobody waits for a turn."""


class Redis(Serial):
    """The server: it answers who waits in it after each call, or when it ticks. So a quiet one answers late, and many at once."""

    def __init__(self, world, wake_up):
        super().__init__(world, wake_up)
        self.blocked, self.ticks = [], False

    def block(self, seconds, wait, then, *args):
        """Let a client wait for so long; half of what that costs is its beginning, half its end."""

        def begun():
            heapq.heappush(self.blocked, (self.world.now + wait, next(self.world.numbers), seconds / 2, then, args))
            if not self.ticks:
                self.tick()

        self.do(seconds / 2, begun)

    def served(self):
        """Answer those whose waiting is over."""
        while self.blocked and self.blocked[0][0] <= self.world.now:
            _, _, seconds, then, args = heapq.heappop(self.blocked)
            self.do(seconds, then, *args)

    def tick(self):
        """Look while somebody waits."""
        self.served()
        self.ticks = bool(self.blocked)
        if self.ticks:
            self.world.at((int(self.world.now / TICK + 1e-6) + 1) * TICK, self.tick)


class World:
    """The clock, the events to come, the server and what was counted."""

    def __init__(self, costs, *, cores=None, seed=1, backlog=True, feed=True):
        self.costs, self.random, self.numbers = costs, random.Random(seed), count()
        self.backlog, self.feeds = backlog, feed  # do messages wait without end? Do producers replace what is claimed?
        self.now, self.events = 0.0, []
        self.cores, self.redis = Cores(self, cores), Redis(self, costs.wake_up)
        self.forget()

    def forget(self):
        """Count from now on."""
        self.since, self.redis.busy, self.calls, self.done, self.waits = self.now, 0.0, 0, 0, []

    def at(self, when, function, *args):
        """Let *function* be called."""
        heapq.heappush(self.events, (when, next(self.numbers), function, args))

    def run(self, until):
        """Let time pass."""
        while self.events and self.events[0][0] <= until:
            self.now, _, function, args = heapq.heappop(self.events)
            function(*args)
        self.now = until

    def ask(self, seconds, then=lambda: None, *args, calls=1):
        """Send a call now, which costs the server so much; *then* is called when its reply is there."""
        self.calls += calls
        half = self.costs.network / 2
        self.at(self.now + half, self.redis.do, seconds, self.reply, half, then, args)

    def ask_and_wait(self, seconds, wait, then, *args):
        """Send a call that waits in the server for so long, unless that comes to it late."""
        self.calls += 1
        half = self.costs.network / 2
        self.at(self.now + half, self.redis.block, seconds, wait, self.reply, half, then, args)

    def reply(self, half, then, args):
        """Send the reply."""
        self.at(self.now + half, then, *args)


class Worker:
    """A worker with one process that runs tasks, each of which takes *duration* seconds."""

    def __init__(self, world, duration):
        self.world, self.duration = world, duration
        self.expected = max(duration + world.costs.child, QUICKEST)
        self.parent, self.child = Serial(world, world.costs.parent_wake_up), Serial(world)
        self.packets = deque()  # that the process has not begun
        self.runs = self.claims = self.settles = self.told_more = self.flow = False
        self.coming = self.held = self.unsettled = 0  # messages claimed; with the process, as far as the parent knows; ended since
        self.unsent, self.since = 0, 0.0  # outcomes that the process keeps while there is more to do, and since when

    def start(self):
        """Begin at some moment, as no two workers are in step."""
        world = self.world
        world.at(world.random.uniform(0, max(0.1, min(1.0, self.duration))), self.claim)
        for names in (("promote",), ("revoked",), ("parked",), ("time", "recover"), ("renew",)):
            every = RENEWAL if names == ("renew",) else EVERY
            world.at(world.random.uniform(0, every), self.care, every, names)

    def care(self, every, names):
        """Look after leases and queues, for ever."""
        for name in names:
            self.world.ask(getattr(self.world.costs, name))
        self.world.at(self.world.now + every, self.care, every, names)

    # Claims

    def room(self):
        """How many messages to claim, as `Inflight.room` says."""
        free = int(not self.held)
        if self.duration >= SHORT:
            return max(0, free - self.coming)
        if self.duration >= COARSE:  # one runs, one waits
            return max(0, max(free, 2 - self.held) - self.coming)
        share = max(0.0, 1 - self.held * self.expected / HORIZON)
        most = max(free, int(share * HORIZON / self.expected)) if free or share >= WORTH else 0
        return max(0, min(MOST, most - self.coming))

    def claim(self):
        """Ask for what can start soon, unless that was done; settlements ride on it. What makes room waits for the claim that follows."""
        if self.claims:
            return
        if not (room := self.room()):
            self.flow = True
            return
        self.claims, costs = True, self.world.costs
        riding = min(BATCH, self.unsettled)
        self.unsettled -= riding
        found = room if self.world.backlog else 0
        seconds = costs.claim_call + costs.claim * found if found else costs.empty_claim
        if riding:
            seconds += costs.ride_call + costs.ride * riding
        self.parent.do(0.0, self.ask, seconds, found)

    def ask(self, seconds, found):
        """Send the claim."""
        self.world.ask(seconds, self.claimed, self.world.now, found)

    def claimed(self, asked, found):
        """Take what came, or wait. The next claim goes before that is cut into packets."""
        world = self.world
        world.waits.append(world.now - asked)
        self.flow = found >= FLOW
        if not found:
            self.wait(world.now + WAIT)
            return
        if world.feeds:
            self.feed(found)
        self.claims, self.coming = False, self.coming + found
        self.claim()
        self.parent.do(world.costs.parent * found / 2, self.deliver, found)

    def feed(self, found):
        """Let producers send so many new messages."""
        world = self.world
        for first in range(0, found, FEEDS_AT_ONCE):
            some = min(FEEDS_AT_ONCE, found - first)
            when = world.now + world.random.uniform(0, FEEDS_WITHIN)
            world.at(when, partial(world.ask, world.costs.publish * some, calls=some))

    def deliver(self, found):
        """Cut what came into packets; claim again."""
        self.held, self.coming = self.held + found, self.coming - found
        size = min(PACKET_JOBS, max(1, int(PACKET_SECONDS / self.expected))) if self.duration < SHORT else 1
        self.packets.extend([size] * (found // size) + ([found % size] if found % size else []))
        self.next_packet()
        self.claim()

    def wait(self, until):
        """Wait in the broker, in slices, each of which ends with a look, in the same call; then claim again."""
        world, left = self.world, until - self.world.now
        if left <= 0:
            self.claims = False
            self.claim()
            return
        world.ask_and_wait(world.costs.look, min(left, LONGEST_WAIT), self.wait, until)

    # Tasks

    def next_packet(self):
        """Run the next packet."""
        if not self.runs and self.packets:
            self.runs, size = True, self.packets.popleft()
            self.child.do(self.world.costs.child * size, self.ran, size)

    def ran(self, size):
        """Let pass what the tasks themselves take."""
        self.world.at(self.world.now + self.duration * size, self.finished, size)

    def finished(self, size):
        """Send the outcomes to the parent, or keep them a little while there is more to do; go on."""
        self.runs, now = False, self.world.now
        self.since = self.since if self.unsent else now - self.duration * size
        self.unsent += size
        if not self.packets or now - self.since > FLUSH_AFTER:
            sent, self.unsent = self.unsent, 0
            self.parent.do(self.world.costs.parent * sent / 2, self.told, sent)
        self.next_packet()

    def told(self, size):
        """Take outcomes: settle them, and claim more if there is room."""
        self.held -= size
        self.world.done += size
        self.unsettled += size
        if self.settles:
            self.told_more = True
        else:
            self.linger()
        self.claim()

    def linger(self):
        """Leave some time for a claim to take settlements along, where one is to be expected."""
        self.settles, self.told_more = True, False
        if self.flow:
            self.world.at(self.world.now + LINGER, self.settle)
        else:  # the settler is woken before the fetcher, so nothing is left to ride
            self.settle()

    def settle(self):
        """Settle what no claim took along."""
        if not self.unsettled:
            self.settles = False
            if self.told_more:
                self.linger()
            return
        batch, costs = min(BATCH, self.unsettled), self.world.costs
        self.unsettled -= batch
        self.parent.do(0.0, self.world.ask, costs.settle_call + costs.settle * batch, self.settle)


def long_enough(costs, workers, duration):
    """Seconds in which each worker has claimed several times, also where all wait for the server."""
    size = 1 if duration >= COARSE else min(MOST, HORIZON / max(duration, QUICKEST))
    turn = workers * (costs.claim_call + costs.settle_call + size * (costs.claim + costs.settle + costs.publish))
    return max(1.0, 3 * duration, 3 * turn)


def simulate(costs, workers, duration, *, cores=None, backlog=True, feed=True):
    """Let so many workers run; return what was counted in the second half of the time."""
    world, seconds = World(costs, cores=cores, backlog=backlog, feed=feed), long_enough(costs, workers, duration)
    running = [Worker(world, duration) for _ in range(workers)]
    for worker in running:
        worker.start()
    world.run(seconds)
    world.forget()
    woken = sum(worker.parent.woken for worker in running)
    world.run(2 * seconds)
    passed, waits = world.now - world.since, sorted(world.waits)
    return {
        "workers": workers,
        "task_s": duration,
        "rate": world.done / passed,
        "redis_share": world.redis.busy / passed,
        "redis_us_per_task": world.redis.busy / world.done * 1e6 if world.done else None,
        "calls_per_second": world.calls / passed,
        "parent_wakes_per_task": (sum(worker.parent.woken for worker in running) - woken) / world.done if world.done else None,
        "claim_wait_p50_ms": waits[len(waits) // 2] * 1e3 if waits else None,
        "claim_wait_p99_ms": waits[int(len(waits) * 0.99)] * 1e3 if waits else None,
    }
