"""The scheduler classes that Celery's users subclass: their names, what can be replaced, and what runs then."""

import json
import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from umbel import Celery, beat
from umbel.beat import BeatLazyFunc, PersistentScheduler, ScheduleEntry, Scheduler, SchedulingError, Service, event_t
from umbel.beat.entry import Entry
from umbel.beat.finding import find_scheduler
from umbel.beat.sending import Run, send
from umbel.beat.service import BeatService, service_of
from umbel.exceptions import ImproperlyConfigured
from umbel.ids import uuid
from umbel.schedules import crontab, schedule
from umbel.task import Task
from umbel.wire.message import decode


@pytest.fixture
def app():
    app = Celery("classes", broker=f"memory://{uuid()}", set_as_current=False)
    app.conf.beat_schedule = {"often": {"task": "tasks.often", "schedule": 0.001, "args": (1,), "options": {"headers": {"x": 1}}}}
    return app


def sent(app):
    app.broker.join("reader", ["celery"], lease=60)
    return [decode(each.raw) for each in app.broker.fetch("celery", 1000, owner="reader", seq=1)]


def test_importing_beat_imports_none_of_it():
    code = "import sys, umbel.beat; print(*(m for m in sys.modules if m.startswith('umbel.beat.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == ""


def test_each_name_of_celery_is_there():
    for name in beat.__all__:
        assert getattr(beat, name) is not None
    assert beat.DEFAULT_MAX_INTERVAL == 300
    assert event_t._fields == ("time", "priority", "entry")
    assert Service.scheduler_cls is PersistentScheduler
    with pytest.raises(AttributeError, match="nothing"):
        _ = beat.nothing


def test_a_tick_sends_what_is_due_with_the_mark_of_beat(app):
    scheduler = Scheduler(app)
    assert scheduler.max_interval == 300
    while not scheduler.schedule["often"].total_run_count:
        scheduler.tick()
    (message,) = sent(app)
    assert (message.headers["celery_beat_task"], message.headers["x"]) == (True, 1)
    assert app.conf.beat_schedule["often"]["options"] == {"headers": {"x": 1}}
    assert isinstance(scheduler.schedule["often"].last_run_at, datetime)


def test_a_new_entry_is_not_due_at_once_and_an_old_one_is(app):
    app.conf.beat_schedule = {"rare": {"task": "t", "schedule": 3600}}
    scheduler = Scheduler(app)
    assert 3590 < scheduler.schedule["rare"].is_due().next <= 3600
    assert scheduler.tick() == scheduler.max_interval
    scheduler.schedule["rare"].last_run_at -= timedelta(hours=2)
    scheduler._heap = None
    assert scheduler.tick() == 0
    assert len(sent(app)) == 1


def test_without_entries_a_tick_waits_the_longest(app):
    app.conf.beat_schedule = {}
    assert Scheduler(app, max_interval=7).tick() == 7
    app.conf.beat_max_loop_interval = 9
    assert Scheduler(app).tick() == 9


def test_what_is_replaced_is_what_runs(app):
    seen = []

    class Entry(ScheduleEntry):
        def is_due(self):
            seen.append("entry.is_due")
            return super().is_due()

        def _next_instance(self, last_run_at=None):
            seen.append("entry.next")
            return super()._next_instance(last_run_at)

        __next__ = next = _next_instance

    class Mine(Scheduler):
        pass

    Mine.Entry = Entry
    for name in ("setup_schedule", "merge_inplace", "install_default_entries", "get_schedule", "is_due", "populate_heap", "reserve",
                 "apply_entry", "apply_async", "send_task", "should_sync", "sync", "schedules_equal", "close"):  # fmt: skip
        setattr(Mine, name, noting(seen, name, getattr(Scheduler, name)))
    scheduler = Mine(app)
    while not sent_by(scheduler):
        scheduler.tick()
    scheduler.tick()  # the first one compares nothing, and may have sent
    scheduler.close()
    assert set(seen) == {"entry.is_due", "entry.next", *(name for name in vars(Mine) if not name.startswith("_") and name != "Entry")}


def noting(seen, name, function):
    def noted(self, *args, **kwargs):
        seen.append(name)
        return function(self, *args, **kwargs)

    return noted


def sent_by(scheduler):
    return sum(entry.total_run_count for entry in scheduler.schedule.values())


def test_a_schedule_that_is_a_property_is_asked_at_each_tick(app):
    class Mine(Scheduler):
        entries = MappingProxyType({}).copy()

        def setup_schedule(self):
            pass

        @property
        def schedule(self):
            return self.entries

    scheduler = Mine(app)
    assert scheduler.tick() == 300
    late = datetime.now(UTC) - timedelta(hours=1)
    Mine.entries = {"new": ScheduleEntry("new", "t", late, schedule=60, app=app)}
    assert scheduler.tick() == 0
    assert len(sent(app)) == 1


def test_what_cannot_be_sent_is_logged_and_has_had_its_turn(app, caplog):
    app.conf.beat_schedule = {"bad": {"task": "t", "schedule": 0.001, "args": (object(),)}}
    scheduler = Scheduler(app)
    while not sent_by(scheduler):
        scheduler.tick()
    assert "Message Error" in caplog.text
    with pytest.raises(SchedulingError, match="The periodic task 'bad' could not be sent"):
        scheduler.apply_async(scheduler.schedule["bad"])


def test_an_entry_that_cannot_say_when_holds_up_no_other(app, caplog):
    class Broken(schedule):
        def is_due(self, last_run_at):
            raise ZeroDivisionError("no idea")

    app.conf.beat_schedule = {**app.conf.beat_schedule, "broken": {"task": "t", "schedule": Broken(1)}}
    scheduler = Scheduler(app)
    while not sent_by(scheduler):
        scheduler.tick()
    assert "Cannot calculate the next run of 'broken'" in caplog.text


def test_of_many_that_are_due_each_is_sent_once(app):
    late = datetime.now(UTC) - timedelta(hours=1)
    app.conf.beat_schedule = {f"e{n}": {"task": f"t{n}", "schedule": 600, "last_run_at": late} for n in range(50)}
    scheduler = Scheduler(app)
    while scheduler.tick() == 0:
        pass
    assert sorted(each.headers["task"] for each in sent(app)) == sorted(f"t{n}" for n in range(50))


def test_an_entry_says_who_it_is(app):
    entry = ScheduleEntry("e", "t", schedule=crontab(minute=5), args=(1,), kwargs={"a": 2}, options={"queue": "q"}, app=app)
    assert repr(entry) == "<ScheduleEntry: e t(1, a=2) <crontab: 5 * * * * (m/h/dM/MY/d)>>"
    following = next(entry)
    assert (following.total_run_count, following.options) == (1, {"queue": "q"})
    assert following == entry
    assert following.last_run_at >= entry.last_run_at
    copied = pickle.loads(pickle.dumps(entry))
    assert (copied, copied.last_run_at) == (entry, entry.last_run_at)
    other = ScheduleEntry("e", "t", schedule=1, app=app)
    assert other != entry
    other.total_run_count = 7
    other.update(entry)
    assert other == entry
    assert other.total_run_count == 7
    with pytest.raises(TypeError):
        ScheduleEntry("e", "t", schedule=1, unknown=1)


def test_a_lazy_argument_is_made_when_it_is_sent(app):
    entry = ScheduleEntry("e", "t", schedule=1, args=(BeatLazyFunc(lambda: 42),), kwargs={"a": BeatLazyFunc(max, 1, 2)}, app=app)
    Scheduler(app, lazy=True).apply_async(entry, advance=False)
    assert json.loads(sent(app)[0].body)[:2] == [[42], {"a": 2}]


def test_entries_are_merged_added_and_replaced(app):
    scheduler = Scheduler(app)
    before = scheduler.schedule["often"]
    scheduler.merge_inplace({"often": {"task": "other", "schedule": 5}, "new": {"task": "n", "schedule": 1}})
    assert set(scheduler.schedule) == {"often", "new"}
    assert scheduler.schedule["often"] is before
    assert before.task == "other"
    scheduler.update_from_dict({"third": {"task": "n", "schedule": 1}})
    scheduler.add(name="fourth", task="n", schedule=1)
    assert set(scheduler.schedule) == {"often", "new", "third", "fourth"}
    scheduler.schedule = {}
    assert scheduler.get_schedule() == {}


def test_sync_is_called_after_so_many_tasks(app):
    scheduler = Scheduler(app, sync_every_tasks=3)
    scheduler._do_sync()
    assert not scheduler.should_sync()
    scheduler._tasks_since_sync = 3
    assert scheduler.should_sync()


def test_a_file_remembers_when_entries_ran(app, tmp_path, caplog):
    file = str(tmp_path / "schedule")
    first = PersistentScheduler(app, schedule_filename=file)
    while not sent_by(first):
        first.tick()
    ran = first.schedule["often"].last_run_at
    first.close()
    second = PersistentScheduler(app, schedule_filename=file)
    assert (second.schedule["often"].last_run_at, sent_by(second)) == (ran, 1)
    assert second.info == f"    . db -> {file}"
    second.close()
    app.conf.beat_schedule = {"other": {"task": "t", "schedule": 1}}
    third = PersistentScheduler(app, schedule_filename=file)
    assert set(third.schedule) == {"other"}
    third.close()
    app.conf.timezone = "Asia/Shanghai"
    fourth = PersistentScheduler(app, schedule_filename=file)
    assert "The time zone was UTC and is Asia/Shanghai" in caplog.text
    fourth.close()


def test_a_file_that_cannot_be_read_is_made_anew(app, tmp_path, caplog):
    for suffix in ("", ".db", ".dat", ".dir"):
        (tmp_path / f"schedule{suffix}").write_bytes(b"no database")
    scheduler = PersistentScheduler(app, schedule_filename=str(tmp_path / "schedule"))
    assert set(scheduler.schedule) == {"often"}
    assert "cannot be read, and begins anew" in caplog.text
    scheduler.close()


def test_a_scheduler_is_found_by_what_says_where_it_is():
    assert find_scheduler(PersistentScheduler) is PersistentScheduler
    for name in ("celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler", "umbel.beat:PersistentScheduler"):
        assert find_scheduler(name) is PersistentScheduler


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nope", "There is no scheduler 'nope'"),
        ("no.such:Class", "No module named 'no'"),
        ("umbel.beat:Nope", "has no attribute 'Nope'"),
        ("umbel.ids:uuid", "no subclass of umbel.beat.Scheduler"),
        (7, "no subclass of umbel.beat.Scheduler"),
    ],
)
def test_one_that_is_not_there_is_told(name, says):
    with pytest.raises(ImproperlyConfigured, match=says):
        find_scheduler(name)


def test_umbels_own_scheduler_runs_unless_another_is_asked_for(app):
    assert type(service_of(app, holder="h")) is BeatService
    app.conf.beat_scheduler = "celery.beat:PersistentScheduler"
    service = service_of(app, holder="h", max_interval=3, schedule_filename="f")
    assert isinstance(service, Service)
    assert (service.max_interval, service.schedule_filename, service.scheduler_cls) == (3, "f", PersistentScheduler)
    assert service_of(app, holder="h", scheduler=Scheduler).scheduler_cls is Scheduler


def test_a_service_lets_its_scheduler_tick_until_it_is_stopped(app):
    sends = threading.Semaphore(0)

    class Mine(Scheduler):
        def send_task(self, *args, **kwargs):
            sends.release()
            return super().send_task(*args, **kwargs)

    service = Service(app, scheduler_cls=Mine)
    thread = threading.Thread(target=service.start)
    thread.start()
    for _ in range(3):
        assert sends.acquire(timeout=20)
    service.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_of_two_services_one_has_a_scheduler_and_then_the_other(app):
    made = []

    class Mine(Scheduler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append((threading.current_thread().name, started[threading.current_thread().name]))
            ticked[threading.current_thread().name].set()

    services = {name: Service(app, scheduler_cls=Mine, holder=name) for name in ("one", "two")}
    ticked, started = {name: threading.Event() for name in services}, {"one": 1, "two": 2}
    threads = {name: threading.Thread(target=each.start, name=name) for name, each in services.items()}
    threads["one"].start()
    assert ticked["one"].wait(20)
    threads["two"].start()
    assert not ticked["two"].is_set()
    services["one"].stop()
    assert ticked["two"].wait(20)
    services["two"].stop()
    for thread in threads.values():
        thread.join(20)
    assert [name for name, _ in made] == ["one", "two"]


def test_without_a_store_one_is_told_to_run_one_only(caplog):
    app = Celery("alone", broker="amqp://nowhere", set_as_current=False)
    app.conf.beat_schedule = {}

    class Mine(Scheduler):
        def tick(self, **_):
            service.stop()
            return 0

    service = Service(app, scheduler_cls=Mine)
    service.start()
    assert "start one only" in caplog.text


def test_a_service_beside_a_program_begins_and_ends(app):
    ticks = threading.Event()

    class Mine(Scheduler):
        def tick(self, **_):
            ticks.set()
            return 1

    embedded = beat.EmbeddedService(app, thread=True, scheduler_cls=Mine)
    embedded.start()
    assert ticks.wait(20)
    embedded.stop()
    assert not embedded.is_alive()


def test_a_tool_that_replaces_apply_entry_sees_the_runs_of_umbels_own_scheduler(app, monkeypatch, caplog):
    real = Scheduler.apply_entry

    def replaced(scheduler, entry, **kwargs):
        assert scheduler.app is app
        entry.options["headers"]["monitor"] = entry.name
        return real(scheduler, entry, **kwargs)

    monkeypatch.setattr(Scheduler, "apply_entry", replaced)
    caplog.set_level("INFO", "celery.beat")
    send(app, [Run(Entry(name="e", task="t", schedule=schedule(1), options={"headers": {"x": 1}}), 1.0)])
    (message,) = sent(app)
    assert {"monitor": "e", "x": 1, "celery_beat_task": True, "umbel_slot": "e@1970-01-01T00:00:01Z"}.items() <= message.headers.items()
    assert caplog.text.count("Scheduler: Sending due task e (t)") == 1


def test_a_tool_that_replaces_apply_async_is_called_for_each_run(app, monkeypatch):
    calls, real = [], Task.apply_async

    def replaced(task, *args, **kwargs):
        calls.append(task.name)
        return real(task, *args, **kwargs)

    @app.task(name="mine")
    def mine():
        pass

    monkeypatch.setattr(Task, "apply_async", replaced)
    send(app, [Run(Entry(name="e", task="mine", schedule=schedule(1)), 1.0)])
    assert (calls, len(sent(app))) == (["mine"], 1)
