"""What groups and chords of many members cost who sends them: round trips, transactions, memory."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from tests import servers
from tests.conftest import absent
from tests.perf.commands import Commands

from umbel import Umbel, chord, group

SIZE, BATCH = 10_000, 500
BATCHES = SIZE // BATCH
MOST_BYTES_KEPT = 300  # of a member, by the result of the canvas: 235
MOST_BYTES_MEANWHILE = 9_000_000  # for the two batches that are on their way


@pytest.fixture(scope="module")
def private_redis() -> Iterator[str]:
    """A Redis that nobody else asks."""
    if servers.find_binary(servers.REDIS) is None:
        absent(servers.REDIS)
    with servers.private(servers.REDIS) as url:
        yield url


def canvas(kind, app, size):
    t = app.task(name="t", typing=False)(lambda *args: args)
    members = (t.si(n) for n in range(size))
    return group(members) if kind == "group" else chord(members, t.s())


@pytest.mark.redis
@pytest.mark.parametrize(("kind", "more"), [("group", {}), ("chord", {"EVALSHA flow_begin": BATCHES, "EVALSHA flow_grow": BATCHES - 1})])
def test_ten_thousand_members_are_sent_with_few_commands_for_each_five_hundred(private_redis, kind, more):
    with Umbel("perf", broker=private_redis, backend=private_redis, set_as_current=False) as app:
        canvas(kind, app, SIZE).apply_async()  # the server knows the scripts now
        with Commands(private_redis) as commands:
            canvas(kind, app, SIZE).apply_async()
    assert commands.sent == {"LPUSH": BATCHES, "EVALSHA ring": BATCHES, **more}  # the first two are one round trip


@pytest.mark.parametrize(("kind", "most"), [("group", BATCHES), ("chord", 3 * BATCHES)])
def test_ten_thousand_members_are_few_transactions_in_sqlite(tmp_path, kind, most):
    url = f"sqlite:///{tmp_path}/umbel.sqlite3"
    options = {"synchronous": "OFF"}
    with Umbel("perf", broker=url, backend=url, set_as_current=False) as app:
        app.conf.broker_transport_options = app.conf.result_backend_transport_options = options
        canvas(kind, app, 1).apply_async()
        before = app.broker._database.commits + app.backend._database.commits
        canvas(kind, app, SIZE).apply_async()
        assert app.broker._database.commits + app.backend._database.commits - before <= most


@pytest.mark.parametrize("kind", ["group", "chord"])
def test_who_sends_ten_thousand_members_needs_memory_for_their_ids_and_two_batches(tmp_path, kind):
    url = f"sqlite:///{tmp_path}/umbel.sqlite3"
    with Umbel("perf", broker=url, backend=url, set_as_current=False) as app:
        canvas(kind, app, 1).apply_async()
        large = canvas(kind, app, SIZE)
        gc.collect()
        tracemalloc.start()
        result = large.apply_async()
        _, peak = tracemalloc.get_traced_memory()
        del large
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert result is not None
    assert kept / SIZE <= MOST_BYTES_KEPT
    assert peak - kept <= MOST_BYTES_MEANWHILE
