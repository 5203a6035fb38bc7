"""Tasks as ordinary classes, their requests, retries and eager calls."""

import asyncio
import json
import threading

import pytest

from umbel import Celery, Task, current_app, current_task, shared_task, uuid
from umbel.context import Context
from umbel.current import pop_frame, push_frame
from umbel.exceptions import DuplicateTaskNameWarning, EncodeError, MaxRetriesExceededError, NotRegistered, Retry


@pytest.fixture
def app():
    place = f"memory://{uuid()}"
    with Celery("tasks", broker=place, backend=place) as app:
        yield app


class Running:
    """Inside it a task runs as in a worker."""

    def __init__(self, task, **fields):
        info = {"exchange": "", "routing_key": "slow", "priority": 3}
        self.task = task
        fields = {"id": "a", "root_id": "r", "called_directly": False, "args": [1], "kwargs": {"y": 2}, "delivery_info": info, **fields}
        self.request = Context(fields)

    def __enter__(self):
        self.token = push_frame(self.task, self.request)
        return self.request

    def __exit__(self, *_):
        pop_frame(self.token)


def test_a_decorated_function_is_a_real_task_at_once(app):
    @app.task
    def f(x):
        """Says what it does."""
        return x

    assert isinstance(f, Task)
    assert isinstance(f, app.Task)
    assert f.name == f"{__name__}.f"
    assert app.tasks[f.name] is f
    assert f(3) == 3
    assert f.__doc__ == "Says what it does."


def test_names_in_a_script_start_with_the_app(app):
    assert app.gen_task_name("f", "__main__") == "tasks.f"
    assert app.gen_task_name("f", "pkg.mod") == "pkg.mod.f"


def test_a_class_of_tasks_is_registered(app):
    class Greet(app.Task):
        name = "greet"
        max_retries = 7

        def run(self, who):
            return f"hello {who}"

    task = app.register_task(Greet())
    assert app.tasks["greet"] is task
    assert (task("you"), task.max_retries, task.app) == ("hello you", 7, app)
    with pytest.raises(TypeError):
        task.delay()


def test_a_base_class_and_custom_attributes(app):
    class Base(Task):
        def on_success(self, retval, task_id, args, kwargs):
            return None

    @app.task(base=Base, bind=True, colour="red")
    def f(self, x):
        return self.colour, x

    assert isinstance(f, Base)
    assert f(1) == ("red", 1)
    assert f.app is app
    f.delay(1)


def test_the_app_s_own_class_of_tasks(app):
    class Mine(Task):
        pass

    with Celery("other", task_cls=Mine, set_as_current=False) as other:
        assert isinstance(other.task(lambda: None), Mine)


def test_options_left_open_follow_the_settings(app):
    @app.task
    def f(): ...

    @app.task(acks_late=False, serializer=None)
    def g(): ...

    assert (f.acks_late, g.acks_late, g.serializer) == (True, False, "json")
    app.conf.task_acks_late = False
    assert f.acks_late is False
    f.acks_late = True
    assert f.acks_late is True


def test_a_missing_task_has_a_typed_error(app):
    with pytest.raises(NotRegistered, match="nope"):
        app.tasks["nope"]


def test_a_second_function_of_a_name_warns(app):
    @app.task(name="twice")
    def f(): ...

    with pytest.warns(DuplicateTaskNameWarning, match="twice"):

        @app.task(name="twice")
        def g(): ...

    assert g is f


def test_decorators_refuse_what_is_no_function(app):
    with pytest.raises(TypeError, match="must be a callable"):
        app.task("f")
    with pytest.raises(TypeError, match="takes exactly 1 argument"):
        app.task(print, print)
    with pytest.raises(TypeError, match="once"):
        shared_task(shared_task(name="client.once")(lambda: None))


def test_a_request_outside_of_a_task_is_blank(app):
    @app.task
    def f(): ...

    assert (f.request.id, f.request.called_directly, f.request.retries, f.request.get("x-tenant", 5)) == (None, True, 0, 5)


def test_threads_and_coroutines_have_their_own_requests(app):
    @app.task
    def f(): ...

    seen = []

    async def one(number):
        with Running(f, id=str(number)):
            await asyncio.sleep(0)
            seen.append((str(number), f.request.id, current_task.request.id))

    async def three():
        await asyncio.gather(*(one(number) for number in range(3)))

    asyncio.run(three())
    with Running(f, id="main"):
        thread = threading.Thread(target=lambda: seen.append((None, f.request.id, None)))
        thread.start()
        thread.join()
    assert sorted(seen, key=str) == sorted([("0", "0", "0"), ("1", "1", "1"), ("2", "2", "2"), (None, None, None)], key=str)


def test_the_current_app_is_this_thread_s_then_the_latest(app):
    assert current_app.main == "tasks"
    found = []
    thread = threading.Thread(target=lambda: found.append(current_app._get_current_object()))
    thread.start()
    thread.join()
    assert found == [app]


def test_a_retry_carries_the_next_run(app):
    @app.task(bind=True)
    def f(self, x, y): ...

    with Running(f, retries=1, headers={"x-tenant": "acme"}, reply_to="me"), pytest.raises(Retry) as caught:
        f.retry(exc=ValueError("no"), countdown=5)
    item = caught.value.sig
    message = json.loads(item.raw)
    headers = message["headers"]
    assert (item.id, item.queue, item.priority) == ("a", "slow", 3)
    assert item.due is not None
    assert (headers["id"], headers["retries"], headers["root_id"], headers["parent_id"], headers["x-tenant"]) == ("a", 2, "r", "a", "acme")
    assert message["properties"]["reply_to"] == "me"
    assert str(caught.value) == "Retry in 5s: ValueError('no')"


@pytest.mark.parametrize("text", ["2030-01-01T00:00:00+00:00", "2030-01-01T00:00:00", "2020-01-01T00:00:00+02:00"])
def test_a_retry_keeps_the_time_of_expiry_also_one_that_has_passed(app, text):
    @app.task(bind=True, expires=60)
    def f(self): ...

    with Running(f, args=[], kwargs={}, expires=text), pytest.raises(Retry) as caught:
        f.retry(countdown=5)
    assert json.loads(caught.value.sig.raw)["headers"]["expires"] == text


def test_retries_end(app):
    @app.task(bind=True)
    def f(self, x, y): ...

    with Running(f, retries=3):
        with pytest.raises(ValueError, match="why"):
            f.retry(exc=ValueError("why"))
        with pytest.raises(MaxRetriesExceededError, match=r"Can't retry .*f\[a\]"):
            f.retry()
        with pytest.raises(Retry):
            f.retry(max_retries=4)


def test_a_retry_may_replace_arguments(app):
    @app.task(bind=True)
    def f(self, x, y=0): ...

    with Running(f, args=[1, 2], kwargs={}), pytest.raises(Retry) as caught:
        f.retry(kwargs={"x": 9})
    assert json.loads(caught.value.sig.raw)["headers"]["kwargsrepr"] == "{'x': 9, 'y': 2}"


def test_a_retry_that_does_not_raise_is_sent(app):
    @app.task(bind=True)
    def f(self, x, y): ...

    with Running(f):
        f.retry(throw=False, countdown=0)
    assert app.broker.depth(["slow"])["slow"].ready == 1


def test_a_retry_of_a_plain_call_raises_what_went_wrong(app):
    @app.task(bind=True)
    def f(self):
        try:
            raise KeyError("x")  # noqa: TRY301
        except KeyError as exc:
            self.retry(exc=exc)

    with pytest.raises(KeyError):
        f()


# --- eager


def test_an_eager_call_really_writes_and_reads_its_message(app):
    app.conf.task_always_eager = True

    @app.task
    def f(value):
        return value

    assert f.delay((1, 2)).get() == [1, 2]
    with pytest.raises(EncodeError):
        f.delay({1})
    assert app.broker.depth(["celery"])["celery"].ready == 0


def test_an_eager_failure_is_stored_in_the_result_or_raised(app):
    app.conf.task_always_eager = True

    @app.task
    def f():
        raise ValueError("no")

    result = f.delay()
    assert (result.state, result.ready(), result.failed()) == ("FAILURE", True, True)
    with pytest.raises(ValueError, match="no"):
        result.get()
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        f.delay()


def test_an_eager_task_retries_at_once(app):
    app.conf.task_always_eager = True

    @app.task(bind=True)
    def f(self, failures):
        if self.request.retries < failures:
            raise self.retry(exc=ValueError("again"), countdown=100)
        return self.request.retries, self.request.id, self.request.is_eager

    result = f.delay(2)
    assert result.get() == [2, result.id, True]
    assert f.delay(9).state == "FAILURE"


def test_apply_runs_here(app):
    @app.task(ignore_result=True)
    def f(x):
        return x + 1

    assert f.apply((1,)).get() == 2


@pytest.mark.parametrize("name", ["events"])
def test_what_an_app_cannot_do_yet_comes_later(name):
    with pytest.raises(AttributeError, match=rf"Umbel\.{name} comes with a later version of umbel\. "):
        getattr(Celery("later", set_as_current=False), name)


def test_an_import_of_what_is_not_built_yet_says_so():
    with pytest.raises(ImportError, match=r"umbel\.events comes with a later version of umbel\. "):
        exec("from umbel import events", {})
