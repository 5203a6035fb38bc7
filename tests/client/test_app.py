"""The app: settings, discovery, life, and what Django adds."""

import os
import textwrap
import warnings

import pytest

from umbel import Celery, Umbel, uuid
from umbel.exceptions import AlwaysEagerIgnored, ImproperlyConfigured, NotSupported
from umbel.result import AsyncResult


@pytest.fixture
def app():
    with Celery("appl", broker=f"memory://{uuid()}") as app:
        yield app


def test_celery_is_umbel(app):
    assert Celery is Umbel
    assert repr(app) == f"<Celery appl at {id(app):#x}>"


def test_importing_loads_no_driver_no_django_and_no_asyncio(python):
    (loaded,) = python(
        """
        import sys, umbel
        foreign = ("redis", "django", "sqlite3", "rich", "click", "asyncio", "yaml")
        print([name for name in foreign if name in sys.modules])
        """
    )
    assert loaded == "[]"


def test_settings_come_from_the_constructor_an_object_and_writes(app):
    class Config:
        CELERY_TIMEZONE = "Asia/Shanghai"
        CELERY_TASK_SERIALIZER = "yaml"

    app.config_from_object(Config, namespace="CELERY")
    app.conf.task_serializer = "msgpack"
    assert (str(app.timezone), app.conf.task_serializer, app.now().utcoffset().total_seconds()) == ("Asia/Shanghai", "msgpack", 8 * 3600)
    app.conf.timezone = "UTC"
    assert str(app.timezone) == "UTC"


def test_settings_come_from_a_module_that_the_environment_names(python):
    (python.folder / "myconf.py").write_text("task_default_queue = 'mine'\n")
    assert python(
        "from umbel import Celery; app = Celery(); app.config_from_envvar('MINE'); print(app.conf.task_default_queue)", MINE="myconf"
    ) == ["mine"]


def test_an_environment_variable_that_is_missing_is_an_error(app):
    with pytest.raises(ImproperlyConfigured, match="NOT_THERE_AT_ALL"):
        app.config_from_envvar("NOT_THERE_AT_ALL")
    assert app.config_from_envvar("NOT_THERE_AT_ALL", silent=True) is False


def test_configuring_tells_its_signals():
    told = []
    with Celery("signals", set_as_current=False) as app:
        app.on_configure.connect(lambda **_: told.append("configure"), weak=False)
        app.on_after_configure.connect(lambda source, **_: told.append(source is app.conf), weak=False)
        app.on_after_finalize.connect(lambda **_: told.append("finalize"), weak=False)
        assert app.conf.task_default_queue == "celery"
        assert app.tasks is not None
        app.finalize()
    assert told == ["configure", True, "finalize"]


def test_discovery_waits_for_a_program_unless_it_is_forced(python):
    for name in ("one", "two", "empty"):
        (python.folder / name).mkdir()
        (python.folder / name / "__init__.py").write_text("")
    for name in ("one", "two"):
        (python.folder / name / "tasks.py").write_text("from umbel import shared_task\n@shared_task\ndef f(): ...\n")
    assert python(
        """
        from umbel import Celery
        app = Celery("d")
        builtin = set(app.tasks)
        app.autodiscover_tasks(["one", "empty"])
        print(sorted(app.tasks.keys() - builtin))
        app.autodiscover_tasks(["two"], force=True)
        print(sorted(app.tasks.keys() - builtin))
        app.import_default_modules()
        print(sorted(app.tasks.keys() - builtin))
        """
    ) == ["[]", "['two.tasks.f']", "['one.tasks.f', 'two.tasks.f']"]


def test_an_import_that_fails_inside_a_task_module_is_not_hidden(python):
    (python.folder / "broken").mkdir()
    (python.folder / "broken" / "__init__.py").write_text("")
    (python.folder / "broken" / "tasks.py").write_text("import not_there_at_all\n")
    assert python(
        """
        from umbel import Celery
        try:
            Celery("d").autodiscover_tasks(["broken"], force=True)
        except ModuleNotFoundError as exc:
            print(exc)
        """
    ) == ["No module named 'not_there_at_all'"]


def test_shared_tasks_are_seen_by_every_app(python):
    assert python(
        """
        from umbel import Celery, shared_task
        @shared_task(name="early")
        def early(): ...
        one, two = Celery("one", broker="memory://1"), Celery("two", broker="memory://2")
        @shared_task(name="late")
        def late(): ...
        print(one.tasks.keys() == two.tasks.keys() >= {"early", "late"}, late.app is two)
        one.set_current()
        print(late.app is one)
        """
    ) == ["True True", "True"]


def test_consumed_queues_are_all_that_are_named_or_those_asked_for(app):
    app.conf.task_queues = ["a", "b"]
    assert app.consumed_queues() == ["a", "b"]
    assert app.consumed_queues("b, c", None) == ["b", "c"]
    assert app.consumed_queues(None, ["a"]) == ["b", "c"]
    assert [queue.name for queue in app.describe_queues(["a"])] == ["a"]


def test_send_task_ignores_eager_mode_with_a_warning(app):
    app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("x")
    assert app.broker.depth(["celery"])["celery"].ready == 1


def test_parts_of_celery_that_are_not_here_say_so():
    with pytest.raises(NotSupported, match="control="):
        Celery("x", control="some.Control")


def test_after_a_fork_parent_and_child_both_send(app):
    @app.task
    def f(): ...

    f.delay()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests
        pid = os.fork()
    if pid == 0:
        try:
            f.delay()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    f.delay()


DJANGO = """
import os, django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TIME_ZONE="Asia/Shanghai", USE_TZ=True, CELERY_BROKER_URL="memory://", CELERY_RESULT_BACKEND="memory://",
)
os.environ["DJANGO_SETTINGS_MODULE"] = "configured.by.hand"
from django.apps import apps
from umbel import Celery
app = Celery("d")
app.config_from_object("django.conf:settings", namespace="CELERY")
@app.task
def f(x): ...
assert not apps.ready
django.setup()
from django.db import transaction
def ready():
    return app.broker.depth(["celery"])["celery"].ready
"""


def test_on_commit_sends_once_after_the_commit_and_nothing_after_a_rollback(python):
    assert python(
        DJANGO
        + textwrap.dedent(
            """
            with transaction.atomic():
                result = f.delay_on_commit(1)
                print(ready(), len(result.id))
            print(ready())
            try:
                with transaction.atomic():
                    f.delay_on_commit(2)
                    raise KeyError
            except KeyError:
                print(ready())
            f.apply_async_on_commit((3,), using="default", queue="celery")
            print(ready())
            with transaction.atomic():
                for wrong in ((), ({1},)):
                    try:
                        f.delay_on_commit(*wrong)
                    except Exception as exc:
                        print(type(exc).__name__)
            print(app.timezone, type(f).__mro__[2].__name__, f.delay(1).app is app)
            """
        )
    ) == ["0 36", "1", "1", "2", "TypeError", "EncodeError", "Asia/Shanghai DjangoTask True"]


def test_an_eager_call_on_commit_runs_at_the_commit_and_its_result_is_there_then(python):
    assert python(
        DJANGO
        + textwrap.dedent(
            """
            app.conf.task_always_eager = True
            @app.task
            def double(x): return 2 * x
            with transaction.atomic():
                result = double.delay_on_commit(21)
                print(result.state, result.ready())
                try:
                    result.get(timeout=1)
                except RuntimeError as exc:
                    print(str(exc).partition("] ")[2].partition(",")[0])
            print(result.state, result.get(timeout=1), double.delay_on_commit(1).get(timeout=1), ready())
            """
        )
    ) == ["PENDING False", "has not run: with task_always_eager it runs when the transaction commits", "SUCCESS 42 2 0"]


def test_overridden_settings_count_at_the_next_call(python):
    assert python(
        DJANGO
        + textwrap.dedent(
            """
            from django.test import override_settings
            with override_settings(CELERY_TASK_DEFAULT_QUEUE="other"):
                f.delay(1)
            print(ready(), app.broker.depth(["other"])["other"].ready)
            """
        )
    ) == ["0 1"]


def test_a_task_that_leaves_a_transaction_open_is_rolled_back(python):
    assert python(
        DJANGO
        + textwrap.dedent(
            """
            import logging
            from django.db import connection
            from umbel.contrib.django.connections import after_task, before_task
            before_task()
            transaction.atomic().__enter__()
            connection.cursor().execute("CREATE TABLE t (x)")
            logging.basicConfig(format="%(levelname)s %(message)s", stream=__import__("sys").stdout)
            after_task("f", "1")
            print(connection.in_atomic_block, connection.get_autocommit())
            """
        )
    ) == ["ERROR Task f[1] left a transaction open on 'default'; it is rolled back.", "False True"]


def test_on_commit_without_django_says_so(python):
    (python.folder / "django.py").write_text("raise ImportError('no django here')\n")
    (told,) = python(
        """
        from umbel import Celery
        app = Celery("d", broker="memory://")
        @app.task
        def f(): ...
        try:
            f.delay_on_commit()
        except Exception as exc:
            print(type(exc).__name__, exc)
        """
    )
    assert told.startswith("ImproperlyConfigured")
    assert "needs Django" in told


def test_a_result_finds_the_current_app(app):
    assert AsyncResult("a").app is app
