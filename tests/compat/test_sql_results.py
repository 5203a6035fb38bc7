"""Real Celery 5.7 and umbel with results in one table: whoever writes a row, the other reads it."""

import uuid

import pytest
from tests.drivers.test_sql import SERVERS
from tests.processes import wait_for

sqlalchemy = pytest.importorskip("sqlalchemy")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(400)]

OTHER = {"celery": "umbel", "umbel": "celery"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def results(request, tmp_path_factory):
    """(URL, settings) of tables of this module's own."""
    if request.param == "sqlite":
        yield f"db+sqlite:///{tmp_path_factory.mktemp('sql')}/results.sqlite3", {}
        return
    url = request.getfixturevalue(SERVERS[request.param]).replace("postgresql:", "postgresql+psycopg:")
    name = f"umbel_fleet_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    yield f"db+{url}", {"database_table_schemas": {"task": name, "group": name}}
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {name}" + (" CASCADE" if request.param == "postgresql" else ""))
    engine.dispose()


@pytest.fixture(scope="module")
def workers(new_fleet, results):
    """For each producer a fleet with one worker, which is the other library's. Celery makes the tables, umbel adds to them."""
    url, conf = results
    fleets = {"celery": new_fleet(**conf), "umbel": new_fleet(task_delay_for="celery", **conf)}
    for fleet in fleets.values():
        fleet.results = url
    with fleets["umbel"].worker("celery") as theirs:
        theirs.waits_to_print("ready.")
        with fleets["celery"].worker("umbel", "-c", "2") as ours:
            ours.waits_to_print("ready.")
            yield fleets


@pytest.mark.parametrize("producer", ["celery", "umbel"])
def test_a_row_of_the_others_worker_is_read_with_its_extended_fields(workers, producer):
    said = workers[producer].script(
        producer,
        "r = add.delay(2, y=3)\n"
        "print(r.get(timeout=60), r.state, r.successful(), r.traceback)\n"
        "print(r.name, r.args, r.kwargs, r.retries, r.queue, '@' in r.worker, list(r.children or ()))\n"
        "import datetime; done = r.date_done.replace(tzinfo=r.date_done.tzinfo or datetime.timezone.utc)\n"
        "print(abs(datetime.datetime.now(datetime.timezone.utc) - done).total_seconds() < 20)\n",
    )
    assert said == ["5 SUCCESS True None", "fleet.add [2] {'y': 3} 0 celery True []", "True"]


@pytest.mark.parametrize("producer", ["celery", "umbel"])
def test_an_exception_in_a_row_of_the_others_worker_is_raised_with_its_type_and_traceback(workers, producer):
    said = workers[producer].script(
        producer,
        "for r in (fails.delay('kaput'), breaks.delay('a', 2)):\n"
        "    try: r.get(timeout=60)\n"
        "    except (ValueError, BrokenError) as exc:\n"
        "        print(repr(exc), r.state, r.failed(), 'Traceback' in r.traceback)\n",
    )
    assert said == ["ValueError('kaput') FAILURE True True", "BrokenError('a', 2) FAILURE True True"]


@pytest.mark.parametrize("producer", ["celery", "umbel"])
def test_all_kinds_of_values_come_back_from_a_row_of_the_other(workers, producer):
    from tests.compat.test_beside_celery import KINDS

    said = workers[producer].script(
        producer, KINDS + "args, kwargs = echo.apply_async(values).get(timeout=60)\nprint([a for a, v in zip(args, values) if a != v])\n"
    )
    assert said == ["[]"]


@pytest.mark.parametrize("producer", ["celery", "umbel"])
def test_started_is_seen_and_the_producer_forgets_a_row_of_the_other(workers, producer):
    fleet = workers[producer]
    name = f"release-{producer}"
    said = fleet.script(
        producer,
        f"r = held.delay('{name}')\n"
        "end = time.monotonic() + 20\n"
        "while r.state != 'STARTED' and time.monotonic() < end: time.sleep(0.02)\n"
        "print(r.state, sorted(r.info))\n"
        f"(FOLDER / '{name}').touch()\n"
        "print(r.get(timeout=60)); r.forget(); print(app.AsyncResult(r.id).state)\n",
    )
    assert said == ["STARTED ['hostname', 'pid']", name, "PENDING"]


@pytest.mark.parametrize("first", ["celery", "umbel"])
def test_a_success_of_one_is_not_written_over_by_the_other(workers, first):
    key = f"stays-{uuid.uuid4()}"
    write = {
        "celery": "app.backend.store_result('{0}', '{1}', '{2}')",
        "umbel": "add.update_state('{0}', '{2}', '{1}')",
    }
    for library, value, state in ((first, "first", "SUCCESS"), (OTHER[first], "second", "PROGRESS")):
        workers[library].script(library, write[library].format(key, value, state))
    read = f"r = app.AsyncResult('{key}'); print(r.state, r.result)"
    for library, fleet in workers.items():
        wait_for(lambda fleet=fleet, library=library: fleet.script(library, read) == ["SUCCESS first"], 20)
