"""Real workers come to what a plain evaluation comes to: of any canvas, each task runs once, and each errback is told once."""

import contextlib
import itertools
import json
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.canvas.generator import canvases
from tests.canvas.plans import CallsInFile, Failed, Namer, Oracle, built, tasks_of
from tests.processes import Running, wait_for
from tests.rabbitmq import delete_queues

from umbel import Umbel, chord, group
from umbel.contrib.testing.worker import start_worker
from umbel.joining import allow_join_result

HERE, A_FEW, FEW, MANY = 40, 12, 100, 600
PATIENCE = 20
NUMBERS = itertools.count(1)
APPS = Path(__file__).parent / "apps"


class World:
    """An app, what its tasks wrote, and what they should have written."""

    def __init__(self, app, called):
        self.app, self.called, self.expected, self.free = app, called, [], False
        self.tasks = tasks_of(app, self.called)

    def check(self, plan):
        """Send the canvas of *plan* and compare what comes of it."""
        prefix = f"{next(NUMBERS)}."
        oracle = Oracle(Namer(prefix))
        expected = oracle.value_of(plan)
        wanted = sorted([*oracle.ran, *(f"told {name}" for name in oracle.told)])
        self.expected += wanted
        found = built(plan, self.tasks, Namer(prefix)).apply_async()
        value = self.value_of(found)

        def calls():
            return sorted(each for each in list(self.called) if each.removeprefix("told ").startswith(prefix))

        def states():
            metas = self.app.backend.get(list(oracle.states))
            return {key: meta and self.app.read_meta(meta)["status"] for key, meta in zip(oracle.states, metas, strict=True)}

        wait_for(lambda: len(calls()) >= len(wanted), PATIENCE, lambda: f"{calls()} of {wanted}, {value}")
        assert calls() == wanted
        wait_for(lambda: states() == oracle.states, PATIENCE, lambda: f"{states()}, not {oracle.states}")
        if found is not None:
            assert value == expected

    def comes_to_rest(self):
        """Wait until nobody would do anything more, and compare all that was done."""
        wait_for(lambda: not self.app.backend.overs(older=0), PATIENCE)
        assert self.app.send_task("celery.ping").get(timeout=PATIENCE) == "pong"
        assert self.free or sorted(self.called) == sorted(self.expected)

    def compare(self, canvas, start, wanted, eagerly):
        """Run a canvas that fails, and compare the calls whose names begin with *start*."""
        result = canvas.apply() if eagerly else canvas.apply_async()
        assert self.value_of(result) == Failed()
        self.free = True

        def calls():
            return [each for each in list(self.called) if each.startswith(start)]

        wait_for(lambda: len(calls()) >= len(wanted), PATIENCE)
        assert self.app.send_task("celery.ping").get(timeout=PATIENCE) == "pong"
        assert calls() == wanted

    def value_of(self, found):
        try:
            return None if found is None else found.get(timeout=PATIENCE)
        except ValueError:
            return Failed()
        except Exception as exc:
            if "Dependency" in str(exc) or "raised" in str(exc):
                return Failed()
            raise


@pytest.fixture(params=["solo", "threads"])
def world(request):
    """A worker in this process."""
    url = f"memory://{uuid.uuid4().hex}"
    with Umbel("gen", broker=url, backend=url, set_as_current=False) as app:
        found = World(app, [])
        with start_worker(app, pool=request.param, concurrency=3), allow_join_result():
            yield found
            found.comes_to_rest()


POOLS = ("solo", "threads", "prefork", "asyncio")
MARKS = {"sqlite": [], "redis": [pytest.mark.redis], "postgresql": [pytest.mark.postgres]}
MARKS["amqp+redis"] = [pytest.mark.amqp, pytest.mark.redis]
MARKS["amqp+postgresql"] = [pytest.mark.amqp, pytest.mark.postgres]
# Each driver and each pool is in the default run.
IN_SHORT = {("sqlite", "asyncio"), ("redis", "prefork"), ("postgresql", "threads"), ("amqp+redis", "solo"), ("amqp+postgresql", "prefork")}


def cases(slow):
    """The product of stores and pools, or the part of it that each run has."""
    return [
        pytest.param(store, pool, marks=[*marks, pytest.mark.slow] if slow else marks, id=f"{store}-{pool}")
        for store, marks in MARKS.items() for pool in POOLS if slow or (store, pool) in IN_SHORT
    ]  # fmt: skip


def settings_of(name, request, folder):
    """The settings of an app whose broker, or result backend, is a server of this kind, with names of the test's own."""
    if name == "redis":
        options = {"global_keyprefix": request.getfixturevalue("redis_prefix")}
        return request.getfixturevalue("redis_url"), options
    if name == "postgresql":
        return request.getfixturevalue("postgres_database"), {}
    return request.getfixturevalue("amqp_url") if name == "amqp" else f"sqlite:///{folder}/umbel.sqlite3", {}


@contextlib.contextmanager
def in_processes(request, folder, store, pool):
    """A worker in processes of its own, on *store*: the names of a broker and, if it is another, a result backend."""
    broker, _, backend = store.partition("+")
    (broker_url, broker_options), (url, options) = (settings_of(name, request, folder) for name in (broker, backend or broker))
    queue = f"canvas-{uuid.uuid4().hex[:8]}"
    conf = {
        "broker_url": broker_url, "result_backend": url, "broker_transport_options": broker_options,
        "result_backend_transport_options": options, "task_default_queue": queue, "umbel_state_url": f"sqlite:///{folder}/state.sqlite3",
    }  # fmt: skip
    calls = folder / "calls"
    calls.touch()
    env = {**os.environ, "CANVAS_SETTINGS": json.dumps(conf), "CANVAS_CALLS": str(calls), "C_FORCE_ROOT": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(APPS), str(APPS.parents[2])])
    command = [sys.executable, "-m", "umbel", "-A", "canvas_app", "worker", "-P", pool, "-c", "3", "-l", "WARNING"]
    with Umbel("gen", set_as_current=False, **conf) as app, Running(command, cwd=APPS, env=env, log=folder / "log") as worker:
        world = World(app, CallsInFile(calls))
        yield world
        world.comes_to_rest()
        worker.send(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.tail()
        assert "CRITICAL" not in worker.log()
    if broker == "amqp":
        delete_queues(broker_url, queue)


@pytest.fixture(params=[False, True], ids=["worker", "eager"])
def eagerly(request):
    return request.param


def checked(world, count):
    # What waits for something that never comes is not made smaller: each try would wait, too.
    @settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None, phases=[Phase.generate]
    )  # fmt: skip
    @given(plan=canvases())
    def check(plan):
        world.check(plan)

    check()


def test_workers_in_memory_come_to_what_a_plain_evaluation_comes_to(world):
    checked(world, HERE)


@pytest.mark.parametrize(("store", "pool"), cases(slow=False))
def test_workers_come_to_what_a_plain_evaluation_comes_to(request, tmp_path, store, pool):
    with in_processes(request, tmp_path, store, pool) as world:
        checked(world, A_FEW)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("store", "pool"), cases(slow=True))
def test_workers_of_each_pool_on_each_driver_come_to_what_a_plain_evaluation_comes_to(request, tmp_path, store, pool):
    with in_processes(request, tmp_path, store, pool) as world:
        checked(world, FEW)


def test_an_errback_of_a_whole_chain_is_told_once_wherever_the_chain_fails(world, eagerly):
    grow, fail, told = (world.tasks[name] for name in ("grow", "fail", "told"))
    for number, kinds in enumerate(["fggggg", "gfgggg", "ggfggg", "gggfgg", "ggggfg", "gggggf"]):
        first, left, right, then, last, end = ({"g": grow, "f": fail}[kind].s(f"{number}.{at}") for at, kind in enumerate(kinds))
        canvas = (first | group(left, right) | then | group(last, grow.s(f"{number}.x")) | end).on_error(told.si(f"{number}.all"))
        world.compare(canvas, f"told {number}.", [f"told {number}.all"], eagerly)


def test_an_errback_of_a_member_and_of_the_body_is_told_of_both(world, eagerly):
    grow, fail, told = (world.tasks[name] for name in ("grow", "fail", "told"))
    canvas = chord([fail.s("m.1").on_error(told.si("m.e")), grow.s("m.2")], grow.s("m.3").on_error(told.si("m.e")))
    world.compare(canvas, "told m.", ["told m.e"] * 2, eagerly)


@pytest.mark.parametrize("kind", ["unfold", "unfold_twice", "fail_instead"])
def test_a_step_that_a_worker_has_sent_is_replaced_by_a_whole_canvas(world, kind):
    world.check(("chain", (("grow", True), (kind, False), ("grow", False))))
    world.check(("chord", (("chain", (("grow", False), (kind, False))), ("grow", False)), (kind, False)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_in_memory_come_to_it_with_many_canvases(world):
    checked(world, MANY)
