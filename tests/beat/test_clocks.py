"""Clocks that are wrong, and clocks that are set: what is due is said by the store's, and no slot runs twice."""

import itertools
import os
import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests import servers
from tests.beat.sites import Site, all_once_without_gap, leader_of, moments, new_clock
from tests.beat.world import START, World
from tests.faults.conftest import running_redis
from tests.processes import wait_for

from umbel.beat.leader import ASKS, TTL
from umbel.schedules import crontab, every, schedule

LENGTH = float(os.environ.get("UMBEL_BEAT_SECONDS", "600"))
SEEDS = 20 if os.environ.get("UMBEL_CHAOS") == "1" else 1
SLACK = 1.5  # seconds that a busy machine needs beside the failover time


CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z"), ("Europe/Berlin", "2026-10-25T01:00Z"), ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"), ("America/New_York", "2026-11-01T06:00Z"),
]  # fmt: skip


def set_back_and_forth(zone, change, seed):
    """Let a store's clock be set many times about a change of a zone's; return the schedules and what was sent in which time."""
    chance, change = random.Random(f"{zone} {change} {seed}"), datetime.fromisoformat(change)
    schedules = {
        "interval": schedule(420), "even": every(minutes=10), "often": crontab("*/20", tz=zone), "hourly": crontab("30", tz=zone),
        "nightly": crontab.from_string("15,45 1,2,3 * * *", tz=zone),
    }  # fmt: skip
    world = World(**{f"{name}-{how}": {"schedule": when, "misfire": how} for name, when in schedules.items() for how in ("all", "once")})
    world.clock.step((change - timedelta(hours=3)).timestamp() - START)
    begin = latest = world.clock.now()
    scheduler = world.scheduler()
    while latest < change.timestamp() + 3 * 3600:
        world.run(chance.uniform(30, 1500), scheduler, step=chance.choice([20, 60]))
        latest = max(latest, world.clock.now())
        world.clock.step(chance.uniform(-5400, 4800))
        if chance.random() < 0.4:
            scheduler = world.scheduler(f"seed {chance.random()}")
    world.clock.step(latest - world.clock.now())
    world.run(60, world.scheduler("last"), step=5)
    return schedules, world.sent(), begin, world.clock.now() - 5


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_a_clock_that_is_set_back_and_forth_where_the_zone_changes_its_own_fires_each_slot_once(zone, change):
    for seed in range(SEEDS):
        schedules, seen, begin, end = set_back_and_forth(zone, change, seed)
        assert set(seen.values()) == {1}, (seed, [slot for slot, times in seen.items() if times > 1])
        for name, when in schedules.items():
            assert moments(seen, f"{name}-all") == moments_of(when, begin, end), (name, seed)


def moments_of(when, begin, end):
    found, at = [], datetime.fromtimestamp(begin, UTC)
    while (at := when.next_after(at)) is not None and at.timestamp() <= end:
        found.append(at.timestamp())
    return found


def watch(site, until, arrived):
    """Note when each run is seen for the first time, until *until*; a look every few milliseconds."""

    def looked():
        slots, now = list(site.slots()), time.time()
        for slot in slots:
            arrived.setdefault(slot, now)
        return time.monotonic() >= until

    wait_for(looked, until - time.monotonic() + 60)


@pytest.mark.slow
@pytest.mark.timeout(LENGTH + 300)
def test_five_schedulers_with_wrong_clocks_run_each_second_once_though_the_leader_is_killed_every_five_seconds(site, capsys):
    clocks = itertools.cycle([site.clock(skew if site.has_a_clock else 0) for skew in (-2, 2, -1, 1, 0)])
    running = [site.beat(clock=next(clocks)) for _ in range(5)]
    arrived, kills = {}, 0
    try:
        site.waits_for(1)
        ends = time.monotonic() + LENGTH
        while time.monotonic() < ends:
            watch(site, min(time.monotonic() + 5, ends), arrived)
            leader = leader_of(running)
            if leader is None:  # it was killed, and its lease goes on
                continue
            leader.kill()
            kills += 1
            running.remove(leader)
            running.append(site.beat(clock=next(clocks)))
        watch(site, time.monotonic() + 2 * TTL, arrived)
    finally:
        for each in running:
            each.__exit__()
    figures = Figures(arrived, site.slots())
    with capsys.disabled():
        print(f"\n{site.app.broker_address()}: {LENGTH:g} s, {kills} leaders killed, {figures}")
    all_once_without_gap(site.slots())
    assert len(arrived) >= LENGTH - 2 * TTL
    assert figures.lateness[-1] <= TTL + ASKS + SLACK
    assert figures.gap <= TTL + ASKS + 1 + SLACK


class Figures:
    """What is to be known of many runs."""

    def __init__(self, arrived, slots):
        self.slots, self.found = slots, moments(arrived)
        self.lateness = sorted(at - moments([slot])[0] for slot, at in list(arrived.items())[1:])  # the first was there before
        self.gap = max(later - earlier for earlier, later in itertools.pairwise(sorted(arrived.values())))

    def __str__(self):
        doubles, missing = sum(self.slots.values()) - len(self.slots), int(self.found[-1] - self.found[0]) + 1 - len(self.found)
        middle, worst = self.lateness[len(self.lateness) // 2], self.lateness[-1]
        said = f"{len(self.found)} slots, {doubles} doubles, {missing} missing, late {middle:.2f} s (median) to {worst:.2f} s"
        return f"{said}, worst gap {self.gap:.2f} s"


@pytest.mark.timeout(300)
def test_a_scheduler_whose_clock_is_set_back_and_forth_runs_each_second_once(server_site):
    clock = server_site.clock()
    if clock is None:
        pytest.skip("needs Linux and a C compiler")
    with server_site.beat(clock=clock):
        server_site.waits_for(2)
        for seconds in (-3600, 7200):
            clock.set(seconds)
            server_site.waits_for(len(server_site.slots()) + 2)
    all_once_without_gap(server_site.slots())
    assert moments(server_site.slots())[-1] <= time.time()


@pytest.fixture
def server_site(redis_url, redis_prefix, tmp_path):
    site = Site(tmp_path, redis_url, redis_prefix)
    yield site
    site.app.close()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def stepping_site(request, tmp_path):
    """A site whose store has a clock that a test sets."""
    clock = new_clock(tmp_path)
    if clock is None or servers.find_binary(servers.REDIS) is None:
        pytest.skip("needs Linux, a C compiler and a redis-server")
    if request.param == "sqlite":  # that of the host
        site = Site(tmp_path, f"sqlite:///{tmp_path}/umbel.sqlite3")
        site.env |= clock.env
        yield site, clock
    else:
        with running_redis(tmp_path / "redis", **clock.env) as server:
            site = Site(tmp_path, server.url)
            yield site, clock
            site.app.close()
    site.app.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_store_whose_clock_is_set_back_and_forth_runs_each_second_once_and_a_dead_leader_is_followed(stepping_site):
    site, clock = stepping_site
    running = [site.beat() for _ in range(2)]
    try:
        site.waits_for(3)
        for seconds in (-10, 20, 12, 3612):
            clock.set(seconds)
            leader = leader_of(running)
            leader.kill()
            killed = time.monotonic()
            running.remove(leader)
            wait_for(lambda: leader_of(running), 60, site.logs)
            assert time.monotonic() - killed <= 2 * TTL + ASKS + SLACK
            running.append(site.beat())
            count = len(site.slots())
            wait_for(lambda count=count: len(site.slots()) > count + 2, 60, site.logs)
        wait_for(lambda: moments(site.slots())[-1] >= time.time() + 3612 - 5, 60, site.logs)
    finally:
        for each in running:
            each.__exit__()
    all_once_without_gap(site.slots())
