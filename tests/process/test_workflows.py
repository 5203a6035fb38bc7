"""Workflows on real workers: chains and chords end as they should, also where processes are killed with -9."""

import contextlib
import os
import random
import signal

import pytest
from tests.process.test_killed import children_of
from tests.processes import wait_for

CHORDS = 32
MARKS = {"redis": [pytest.mark.redis], "sqlite": [], "postgresql": [pytest.mark.postgres], "amqp": [pytest.mark.amqp]}


def on(*pools: str, all_pools: bool = True, all_stores: bool = True) -> pytest.MarkDecorator:
    """The cases of a test: on Redis all pools, elsewhere the first, if these say so. The rest is slow."""
    cases = []
    for store, marks in MARKS.items():
        for pool in pools:
            short = (pool == pools[0] and all_stores) or (store == "redis" and (pool == pools[0] or all_pools))
            cases.append(pytest.param(store, pool, marks=marks if short else [*marks, pytest.mark.slow], id=f"{store}-{pool}"))
    return pytest.mark.parametrize(("ledger", "pool"), cases, indirect=["ledger"])


SEND = """
from ledger_app import *
from umbel.canvas import chain, chord
for n in range({n}):
    last = raises.s("no") if n % 4 == 3 else work.si(n, 0.01)
    header = [chain(work.si(n, 0.005), work.si(n, 0.005)), work.si(n, 0.01), last]
    chord(header, body.s(str(n)).on_error(told.s(str(n)))).apply_async()
"""


@pytest.mark.timeout(300)
@on("prefork", "solo", "threads", "asyncio")
def test_chains_and_chords_give_their_values_on(ledger, pool):
    with ledger.worker("-P", pool, "-c", "2") as worker:
        said = ledger.script(
            "from ledger_app import *\n"
            "from umbel.canvas import chain, chord, group\n"
            "def value(sig): return sig.apply_async().get(timeout=60, follow_parents=False)\n"
            "print(value(chain(work.s(1), body.si([], 'x'), flaky.s(1))))\n"
            "print(value(chord([work.s(n) for n in range(5)], sum_of.s())))\n"
            "print(value(work.s(2) | group(flaky.s(1), flaky.s(0)) | sum_of.s() | flaky.s(0)))\n"
            "print(value(chord([chord([work.s(1), work.s(2)], sum_of.s()), chain(work.s(3), flaky.s(0))], sum_of.s())))\n"
        )
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert said.split() == ["1", "10", "0", "3"]


@pytest.mark.timeout(400)
@on("prefork", "solo", all_pools=False)
def test_each_body_runs_or_its_errback_does_though_workers_are_killed_in_a_loop(ledger, pool):
    chords = CHORDS if "redis" in ledger.env["LEDGER_BROKER"] else CHORDS // 2
    ledger.script(SEND.format(n=chords))
    chance = random.Random(11)

    def ended() -> set[str]:
        return {line.split()[1] for line in ledger.lines() if line.startswith(("body", "told"))}

    for done in range(4, chords - 4, 8):
        with ledger.worker("-P", pool, "-c", "2") as worker:
            wait_for(lambda done=done: len(ended()) >= done, 40, ledger.logs)
            victim = chance.choice([worker.pid, *children_of(worker.pid)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait()
    with ledger.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: len(ended()) == chords, 60, ledger.logs)
        worker.waits_to_print("ready.")  # perhaps those before it have done all
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    # What was killed while it ran runs again, as any task does; but of one release only.
    released = {tuple(line.split()) for line in ledger.lines() if line.startswith("body")}
    assert sorted(tuple(each[1:3]) for each in released) == sorted((str(n), "3") for n in range(chords) if n % 4 != 3)
    assert {line for line in ledger.lines() if line.startswith("told")} == {f"told {n}" for n in range(3, chords, 4)}


@pytest.mark.timeout(300)
@on("prefork", all_stores=False)
def test_a_member_that_kills_its_process_fails_its_chord_once(ledger, pool):
    ledger.script(
        "from ledger_app import *\nfrom umbel.canvas import chord\n"
        "chord([work.s(1), dies.s(2)], body.s('a').on_error(told.s('a'))).apply_async()"
    )
    with ledger.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: "told a" in ledger.lines(), 40, ledger.logs)
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert ledger.lines().count("told a") == 1
    assert not [line for line in ledger.lines() if line.startswith("body")]


@pytest.mark.timeout(300)
@on("prefork", all_pools=False)
def test_what_is_revoked_expired_or_buried_fails_its_chord_and_its_chain(ledger, pool):
    ledger.script(
        "from datetime import UTC, datetime, timedelta\nfrom ledger_app import *\nfrom umbel.canvas import chain, chord\n"
        "past = datetime.now(UTC) - timedelta(seconds=5)\n"
        "app.control.revoke('gone')\n"
        "for name, sig in {'r': work.si(1).set(task_id='gone'), 'e': work.si(1).set(expires=past), 'b': rejects.si()}.items():\n"
        "    chord([work.si(1), sig.clone()], body.s(name).on_error(told.s(name))).apply_async(task_id=f'body {name}')\n"
        "    chain(work.si(1), sig.clone(), work.si(1)).apply_async(task_id=f'chain {name}')\n"
    )
    with ledger.worker("-P", pool, "-c", "2") as worker:
        wait_for(lambda: {"told r", "told e", "told b"} <= set(ledger.lines()), 40, ledger.logs)
        said = ledger.script(
            "from ledger_app import *\n"
            "for name in 'reb':\n"
            "    for id in f'body {name}', f'chain {name}':\n"
            "        result = app.AsyncResult(id)\n"
            "        result.get(timeout=60, propagate=False)\n"
            "        print(result.state)\n"
        )
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
    assert said.split() == ["FAILURE"] * 6
    assert sorted(line for line in ledger.lines() if line.startswith(("told", "body"))) == ["told b", "told e", "told r"]
