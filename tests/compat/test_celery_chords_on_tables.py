"""Chords of Celery's producers where results are in tables: a task looks again and again whether the header has ended.

The same of chords that umbel's producers send with `task_canvas_embed`.
"""

import re
import uuid
from collections import Counter

import pytest
from tests.compat.test_beside_celery import leftovers
from tests.compat.test_workflows_in_mixed_fleets import CHORDS, MANY, SIZE
from tests.drivers.test_sql import SERVERS
from tests.processes import wait_for

sqlalchemy = pytest.importorskip("sqlalchemy")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(400)]

QUICK = {"result_chord_retry_interval": 0.1}

VALUES = """
from celery import chain, chord, group
def value(sig): return sig.apply_async().get(timeout=20)
print(value(chord([add.s(1, 1), add.s(2, 2)], total.s())))
print(value(chord([add.s(1, 1), chain(add.s(1, 1), add.s(3))], total.s())))
print(value(chord([add.s(1, 1), add.s(2, 2)], chain(total.s(), add.s(1)))))
print(value(chord([add.s(1, 1), add.s(2, 2)], total.s()) | add.s(5) | add.s(6)))
print(value(chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())))
print(value(chord([add.s(1, 1), flaky.s(2)], total.s())))
print(value(chord([add.s(1, 1), add.s(2, 2)], group(echo.s(), echo.s(2)))))
print(value(chord([group(echo.s(1), echo.s(2)), echo.s(3)], echo.s())))
print(value(chord([add.s(1, 1)], total.si([7]))))
"""

FAILED = """
from celery import chain, chord, group
def failed(result):
    exc = result.get(timeout=20, propagate=False)
    return f'{type(exc).__name__} {exc} {result.state}'
header = [fails.s('z').set(task_id='the-member'), add.s(1, 1)]
print(failed(chord(header, body.s('failed').set(task_id='the-body').on_error(told.s('chord'))).apply_async()))
after = chain(chord([fails.s('a').set(task_id='member-2'), add.s(1, 1)], total.s()), add.s(1)).apply_async()
print(failed(after), failed(after.parent))
for each in chord([fails.s('b').set(task_id='member-3'), add.s(1, 1)], group(echo.s(), echo.s(2))).apply_async():
    print(failed(each))
inner = chord([fails.s('c').set(task_id='member-4'), add.s(1, 1)], total.s()).set(task_id='inner')
print(failed(chord([inner, add.s(1, 1)], total.s()).apply_async()).split()[0])
"""


@pytest.fixture(params=["sqlite", *(pytest.param(each, marks=pytest.mark.slow) for each in SERVERS)])
def on_tables(request, new_fleet, tmp_path_factory):
    """Makes fleets, each with tables of its own."""
    schemas = []
    url = (
        None if request.param == "sqlite" else request.getfixturevalue(SERVERS[request.param]).replace("postgresql:", "postgresql+psycopg:")
    )
    engine = sqlalchemy.create_engine(url) if url else None

    def make(**conf):
        if engine is None:
            fleet = new_fleet(**QUICK, **conf)
            fleet.results = f"db+sqlite:///{tmp_path_factory.mktemp('chords')}/results.sqlite3"
            return fleet
        schemas.append(f"umbel_chords_{uuid.uuid4().hex[:12]}")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schemas[-1]}")
        fleet = new_fleet(**QUICK, database_table_schemas={"task": schemas[-1], "group": schemas[-1]}, **conf)
        fleet.results = f"db+{url}"
        return fleet

    yield make
    if engine is not None:
        with engine.begin() as connection:
            for schema in schemas:
                connection.exec_driver_sql(f"DROP SCHEMA {schema}" + (" CASCADE" if request.param == "postgresql" else ""))
        engine.dispose()


DEPENDENCY = re.compile(r"Dependency \S+ raised ")  # Celery names the member only where it counts in keys; umbel always does


@pytest.mark.parametrize("script", [VALUES, FAILED], ids=["values", "failures"])
def test_a_chord_comes_to_the_same_in_a_worker_of_umbel_as_in_celerys(on_tables, script):
    found = []
    for library in ("celery", "umbel"):
        fleet = on_tables()
        with fleet.worker(library):
            found.append([DEPENDENCY.sub("", line) for line in fleet.script("celery", script)])
            if script is FAILED:
                wait_for(lambda fleet=fleet: [what for _, what in fleet.ledger()] == ["told chord the-body"], 60, fleet.tails)
    assert found[1] == found[0]


@pytest.mark.parametrize("producer", ["celery", pytest.param("umbel", marks=pytest.mark.slow)])
def test_a_chord_whose_members_run_in_both_libraries_workers_ends_once(on_tables, producer):
    fleet = on_tables(**({"task_canvas_embed": True} if producer == "umbel" else {}))
    with fleet.worker("celery") as celery, fleet.worker("umbel", "-c", "2") as umbel:
        celery.waits_to_print("ready.")
        umbel.waits_to_print("ready.")
        many = MANY.replace("'Dependency' in", "'ValueError' in").replace("from celery", f"from {producer}")
        assert fleet.script(producer, many.format(size=SIZE, chords=CHORDS)) == ["True", str(CHORDS)]
        told = lambda: [what for _, what in fleet.ledger() if what.startswith("told")]  # noqa: E731
        wait_for(lambda: len(told()) >= CHORDS, 60, fleet.tails)
        for worker in (celery, umbel):
            worker.send(15)
            assert worker.exit_code() == 0, worker.tail()
    bodies = Counter(what for _, what in fleet.ledger() if what.startswith("body"))
    assert bodies == {f"body {c} {list(range(SIZE))}": 1 for c in range(CHORDS)}
    assert Counter(what.split()[1] for what in told()) == {str(c): 1 for c in range(CHORDS)}
    assert {library for library, what in fleet.ledger() if what.isdigit()} == {"celery", "umbel"}, "one worker did it all"
    assert leftovers(fleet) == {}


KILLED = """
from celery import chord
sent = chord([work.s(n) for n in range(4)], body.s('killed')).apply_async()
print(sent.get(timeout=22))
assert add.delay(1, 1).get(timeout=20) == 2
"""


def kill_at(where, make, monkeypatch):
    """Kill the worker that sends the body of a chord, with the fleet that *make* makes; say what ran as bodies."""
    monkeypatch.setenv("KILLED_AT_CHORDS", where)
    fleet = make(imports=["dies_at_chords"], worker_lease=2, worker_lease_renewal=0.5)
    with fleet.worker("umbel", "-c", "1") as first:
        script = fleet.begin("celery", KILLED)
        wait_for((fleet.folder / "died").exists, 60, fleet.tails)
        assert first.exit_code() != 0
        with fleet.worker("umbel", "-c", "1") as second:
            assert fleet.end(script) == ["4"]
            if where == "sent":
                second.waits_to_print("Another copy of fleet.body")
            second.send(15)
            assert second.exit_code() == 0, second.tail()
    return [what for _, what in fleet.ledger() if what.startswith("body")]


@pytest.mark.parametrize("where", ["claimed", "sent"])
def test_the_body_runs_once_when_the_worker_that_sends_it_is_killed(new_fleet, monkeypatch, where):
    assert kill_at(where, lambda **conf: new_fleet(**QUICK, **conf), monkeypatch) == ["body killed [0, 1, 2, 3]"]


@pytest.mark.parametrize("where", ["claimed", "sent"])
def test_the_body_on_tables_runs_once_when_the_worker_that_sends_it_is_killed(on_tables, monkeypatch, where):
    assert kill_at(where, on_tables, monkeypatch) == ["body killed [0, 1, 2, 3]"]
