"""What a chord of 10,000 members costs the result backend: commands, transactions, bytes that are kept."""

import json
from collections.abc import Callable, Iterator

import pytest
import redis
from tests import servers
from tests.conftest import absent
from tests.perf.commands import Commands

from umbel import Umbel, chain, chord
from umbel.backend import Arrival, Over, ResultBackend
from umbel.canvas.launch import decode_place
from umbel.drivers import open_backend
from umbel.execution.followup import Ending
from umbel.worker.releases import follower_of

SIZE, BATCH, WEEK = 10_000, 500, 7 * 86_400.0
BATCHES = SIZE // BATCH
MOST_BYTES_OF_A_PART = 59  # kept for a value of three bytes: 53.2
MOST_BYTES_AFTER = 450  # of a chord that was sent: 408, for a week
LARGEST_MESSAGE, MOST_OTHERS = 2048, 12
MOST_BYTES_OF_A_NODE = 103  # with a node of 40 bytes: 93.1


@pytest.fixture
def private_redis() -> Iterator[str]:
    """A Redis that nobody else asks."""
    if servers.find_binary(servers.REDIS) is None:
        absent(servers.REDIS)
    with servers.private(servers.REDIS) as url:
        yield url


def run_chord(backend: ResultBackend, *, before_sent: Callable[[], object] = lambda: None) -> None:
    """Begin it, let all parts arrive in batches, read their values, and note that its body was sent."""
    backend.begin_flow("chord", {}, {0: (SIZE, b"x" * 100)}, expires=WEEK)
    overs = list[Over | None]()
    for start in range(0, SIZE, BATCH):
        parts = [Arrival(flow="chord", join=0, position=n, id=f"task-{n}", value=b"123") for n in range(start, start + BATCH)]
        overs += backend.arrive(parts, expires=WEEK)
    (over,) = filter(None, overs)
    values: list[bytes] = []
    while len(values) < over.size:
        values += backend.arrived("chord", 0, start=len(values), limit=BATCH)
    before_sent()
    backend.sent([over])


def memory_of(client: redis.Redis) -> int:
    """The bytes of all keys: what `MEMORY USAGE` says when it looks at every element."""
    return sum(client.memory_usage(key, samples=0) for key in client.scan_iter(count=1000))


@pytest.mark.redis
def test_a_chord_of_ten_thousand_is_one_command_for_each_batch_on_redis(private_redis):
    backend = open_backend(private_redis)
    backend.open()
    run_chord(backend)  # the server knows the scripts now
    backend.forget_flows(["chord"])
    with Commands(private_redis) as commands:
        run_chord(backend)
    backend.close()
    assert commands.sent == {
        "EVALSHA flow_begin": 1, "EVALSHA flow_arrive": BATCHES, "EVALSHA flow_arrived": BATCHES, "EVALSHA flow_sent": 1,
    }  # fmt: skip


@pytest.mark.redis
def test_looking_for_what_nobody_has_sent_is_one_command_if_there_is_nothing(private_redis):
    backend = open_backend(private_redis)
    backend.overs(older=1.0)
    with Commands(private_redis) as commands:
        assert backend.overs(older=1.0) == []
    backend.close()
    assert commands.sent == {"EVALSHA flow_overs": 1}


@pytest.mark.redis
def test_a_chord_keeps_little_in_redis_and_next_to_nothing_when_it_was_sent(private_redis):
    backend = open_backend(private_redis)
    kept: list[int] = []
    with redis.Redis.from_url(private_redis) as client:
        run_chord(backend, before_sent=lambda: kept.append(memory_of(client)))
        after = memory_of(client)
    backend.close()
    assert kept[0] / SIZE <= MOST_BYTES_OF_A_PART, f"A part takes {kept[0] / SIZE} bytes; the limit is {MOST_BYTES_OF_A_PART}"
    assert after <= MOST_BYTES_AFTER, f"A chord that was sent takes {after} bytes; the limit is {MOST_BYTES_AFTER}"


@pytest.mark.redis
def test_the_nodes_of_a_large_flow_are_written_and_read_five_hundred_at_once(private_redis):
    backend = open_backend(private_redis)
    nodes = [dict.fromkeys(range(start, start + BATCH), b"n" * 40) for start in range(0, SIZE, BATCH)]
    backend.begin_flow("flow", nodes[0], {}, expires=WEEK)
    backend.nodes([("flow", 0)])
    with Commands(private_redis) as commands:
        for some in nodes:
            backend.begin_flow("flow", some, {}, expires=WEEK)
        assert None not in backend.nodes([("flow", number) for number in nodes[0]])
    backend.close()
    assert commands.sent == {"EVALSHA flow_begin": BATCHES, "EVALSHA flow_read": 1}
    with redis.Redis.from_url(private_redis) as client:
        size = memory_of(client) / SIZE
    assert size <= MOST_BYTES_OF_A_NODE, f"A node of 40 bytes takes {size}; the limit is {MOST_BYTES_OF_A_NODE}"


def test_a_chord_of_ten_thousand_is_one_transaction_for_each_batch_in_sqlite(tmp_path):
    backend = open_backend(f"sqlite:///{tmp_path}/umbel.sqlite3", options={"synchronous": "OFF"})
    backend.open()
    before = backend._database.commits
    run_chord(backend)
    assert backend.overs(older=1.0) == []  # only looks
    assert backend._database.commits - before == 1 + BATCHES + 1
    backend.close()


@pytest.mark.redis
def test_the_end_of_a_chord_of_ten_thousand_is_few_round_trips(private_redis):
    with Umbel("perf", broker=private_redis, backend=private_redis, set_as_current=False) as app:
        t = app.task(name="t", typing=False)(lambda *args: args)
        follower = follower_of(app, app.conf, may_write=lambda: True)
        members = [t.si(n).set(task_id=f"task-{n}") for n in range(SIZE)]
        chord(members, t.s()).apply_async()
        with redis.Redis.from_url(private_redis) as client:
            raws = client.lrange("celery", 0, -1)
        places = [decode_place(json.loads(raw)["headers"]["umbel_flow"]) for raw in raws]
        *others, last = sorted(places, key=lambda place: place.part.position)
        for start in range(0, SIZE - 1, BATCH):
            parts = [(place, place.part) for place in others[start : start + BATCH]]
            app.backend.arrive(
                [Arrival(flow=place.flow, join=part.join, position=part.position, id="m", value=b"123") for place, part in parts],
                expires=WEEK,
            )
        with Commands(private_redis) as commands:
            follower.follow([Ending.at(last, id="the last", value=b"123")])
    assert sum(commands.sent.values()) <= BATCHES + MOST_OTHERS, commands.sent


@pytest.mark.redis
def test_the_messages_of_a_chain_of_a_hundred_chords_are_small(private_redis):
    with (
        Umbel("perf", broker=private_redis, backend=private_redis, set_as_current=False) as app,
        redis.Redis.from_url(private_redis) as client,
    ):
        t = app.task(name="t", typing=False)(lambda *args: args)
        follower = follower_of(app, app.conf, may_write=lambda: True)
        chain(*[chord([t.s(), t.s()], t.s()) for _ in range(100)]).apply_async()
        seen = 0
        while raws := client.lrange("celery", 0, -1):
            client.delete("celery")
            seen += len(raws)
            assert max(map(len, raws)) <= LARGEST_MESSAGE
            headers = [json.loads(raw)["headers"] for raw in raws]
            follower.follow([Ending.at(decode_place(each["umbel_flow"]), id=each["id"], value=b"123") for each in headers])
    assert seen == 300
