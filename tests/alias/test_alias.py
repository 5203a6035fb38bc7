"""`umbel.install_as_celery()`: who imports celery gets umbel's very objects, and is told what there is not."""

from pathlib import Path

import pytest

from umbel.contrib.celery_alias.finder import reason
from umbel.contrib.celery_alias.names import MADE, SAME

IMPORTED = Path(__file__).with_name("imported.txt").read_text().split()  # what packages of others import, as `module:name`


def test_modules_and_classes_are_the_very_ones_of_umbel(programs):
    programs.python(
        """
        import celery.exceptions, celery.result, celery.signals, celery.states, celery.utils.log, celery.contrib.testing.app
        from celery import Celery, Task, current_app, shared_task
        from celery.app.task import Context, Task as Again

        import umbel.exceptions, umbel.utils.log, umbel.context
        assert celery.exceptions is umbel.exceptions and celery.utils.log is umbel.utils.log
        assert celery.exceptions.__spec__.name == "umbel.exceptions"  # a reload and a pickle find it
        assert Celery is umbel.Celery and Task is Again is umbel.Task and Context is umbel.context.Context
        assert issubclass(umbel.exceptions.Retry, celery.exceptions.Retry)
        """
    )


def test_schedules_are_those_of_umbel(programs):
    programs.python(
        """
        from celery import schedules
        from celery.schedules import BaseSchedule, ParseException, crontab, crontab_parser, maybe_schedule, schedstate, schedule, solar
        import umbel.schedules, pickle
        assert schedules is umbel.schedules and crontab is umbel.schedules.crontab
        assert umbel.schedules.crontab.from_string("0 4 * * *") == pickle.loads(pickle.dumps(crontab(0, 4)))
        """
    )


def test_modules_are_reached_as_attributes_of_the_package(programs):
    programs.python(
        "import celery, umbel; assert celery.exceptions.Retry is umbel.exceptions.Retry; assert celery.app.task.Task is umbel.Task"
    )


def test_importing_celery_imports_little(programs):
    printed = programs.python("import sys, celery; print({'umbel.app', 'umbel.cli', 'umbel.worker.worker', 'django'} & set(sys.modules))")
    assert printed.strip() == "set()"


def test_a_pickle_names_umbel_and_one_of_celery_is_read(programs):
    programs.python(
        r"""
        import pickle
        from celery.exceptions import Reject
        assert b"umbel.exceptions" in pickle.dumps(Reject("no"))
        assert type(pickle.loads(b"ccelery.exceptions\nReject\n(Vno\ntR.")) is Reject
        """
    )


def test_the_version_is_that_of_the_celery_whose_interface_it_is(programs):
    programs.python(
        """
        import celery, umbel
        from importlib.metadata import PackageNotFoundError, version
        assert celery.VERSION >= (5, 4, 0) and celery.VERSION.major == 5 and celery.__version__.startswith("5.")
        assert umbel.__version__ in celery.VERSION_BANNER
        try:
            version("celery")
        except PackageNotFoundError:
            print("not installed")
        """
    )


def test_a_distribution_is_there_only_if_it_is_asked_for(programs):
    programs.python(
        """
        import umbel; umbel.install_as_celery(distribution=True)
        from importlib.metadata import metadata, version
        assert version("celery").startswith("5.") and "umbel" in metadata("celery")["Summary"]
        assert version("pytest")
        """,
        installed=False,
    )


def test_everything_is_taken_by_a_star(programs):
    programs.python("from celery import *\nassert Celery and Task and shared_task and current_app and uuid")


def test_installing_it_twice_changes_nothing(programs):
    programs.python("import sys, celery; before = list(sys.meta_path); umbel.install_as_celery(); assert sys.meta_path == before")


def test_it_is_refused_when_celery_itself_is_imported(programs):
    programs.write(celery="Celery = 1")
    printed = programs.python(
        """
        import celery, umbel
        try:
            umbel.install_as_celery()
        except RuntimeError as exc:
            print(exc)
        """,
        installed=False,
    )
    assert printed.startswith("Celery itself is imported already, from ")
    assert "manage.py" in printed


def test_a_celery_or_kombu_that_is_installed_is_hidden_unless_kombu_is_wanted(programs):
    programs.write(celery="raise SystemExit('the real one')", kombu="REAL = True")
    programs.python("import celery, kombu; assert not hasattr(kombu, 'REAL')")
    programs.python("import umbel; umbel.install_as_celery(companions=False); import celery, kombu; assert kombu.REAL", installed=False)
    printed = programs.python(
        """
        import kombu, umbel
        try:
            umbel.install_as_celery()
        except RuntimeError as exc:
            print(exc)
        """,
        installed=False,
    )
    assert "companions=False" in printed


def test_errors_of_kombu_are_those_that_a_call_raises(programs):
    programs.python(
        """
        from celery import Celery
        from kombu.exceptions import OperationalError
        app = Celery(broker="redis://127.0.0.1:1/0", task_publish_retry=False)
        try:
            app.send_task("x")
        except OperationalError:
            pass
        """
    )


@pytest.mark.parametrize("where", IMPORTED)
def test_each_name_that_others_import_is_there_or_has_its_reason(where):
    module, _, name = where.partition(":")
    assert (
        module in SAME
        or (module in MADE and (not name or knows(module, name)))
        or reason(module, name)
        or where in {"kombu:Connection", "kombu.pools"}  # the text says how to have kombu itself
    ), f"{where}: give it a line in names.py"


def knows(module, name):
    from umbel.contrib.celery_alias.finder import children, sources

    return name in sources(module) or name in children(module) or name == "*"


def test_each_name_of_the_table_is_there_unless_its_part_is_not_built(programs):
    printed = programs.python(
        """
        import importlib
        from importlib.util import find_spec
        from umbel.contrib.celery_alias.finder import sources
        from umbel.contrib.celery_alias.names import MADE, SAME, WHY
        for module in (*SAME, *MADE):
            if module not in WHY and module not in ("celery.fixups.django", "celery.contrib.django.task"):
                found = importlib.import_module(module)
                for name, (source, _) in sources(module).items():
                    if find_spec(source) and not hasattr(found, name):
                        print(module, name)
        """
    )
    assert printed == ""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("from celery.worker.consumer import Consumer", "no celery.worker.consumer in this version. umbel has no custom"),
        ("from celery.backends.base import KeyValueStoreBackend", "no celery.backends.base.KeyValueStoreBackend in this version"),
        ("from celery import bootsteps", "no celery.bootsteps"),
        ("from celery import never_there", "no celery.never_there. docs/how-to/run-celery-code.md"),
        ("import celery.app.nothing", "no celery.app.nothing"),
        ("from kombu import Connection", "companions=False"),
    ],
)
def test_what_is_not_there_is_an_import_error_that_says_what_to_do(programs, statement, said):
    printed = programs.python(f"try:\n    {statement}\nexcept ImportError as exc:\n    print(exc)")
    assert said in printed


def test_who_asks_whether_there_is_something_gets_an_answer(programs):
    programs.python("import celery; assert not hasattr(celery, 'never_there'); assert getattr(celery.app, 'builtins', None) is None")


def test_modules_can_be_found_and_loaded_again(programs):
    programs.python(
        """
        from importlib import reload
        from importlib.util import find_spec
        assert find_spec("celery") and find_spec("celery.contrib.testing.app") and not find_spec("celeryx")
        import celery.states, celery.app
        reload(celery), reload(celery.states), reload(celery.app)
        assert celery.states.SUCCESS == "SUCCESS" and celery.app.Celery
        """
    )


def test_many_threads_import_the_same_objects(programs):
    programs.python(
        """
        import threading
        found, start = [], threading.Barrier(16)
        def work():
            start.wait()
            from celery.exceptions import Retry
            from celery.app.task import Task
            from celery import Celery
            found.append((Retry, Task, Celery))
        threads = [threading.Thread(target=work) for _ in range(16)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert len(set(found)) == 1 and len(found) == 16
        """
    )


PROJECT = """
    from celery import Celery, shared_task
    from celery.utils.log import get_task_logger

    app = Celery("proj", broker="sqlite:///{folder}/q.sqlite3", backend="sqlite:///{folder}/q.sqlite3")

    @app.task
    def add(x, y):
        return x + y
"""


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "umbel", "--as-celery", "-A", "proj"),
        ("-m", "umbel.contrib.celery_alias", "-m", "celery", "-A", "proj"),
        ("-m", "umbel.contrib.celery_alias", "script.py"),
    ],
)
def test_a_project_that_imports_celery_runs_from_the_command_line(programs, words):
    programs.write(proj=PROJECT.replace("{folder}", str(programs.folder)), script="from proj import app; app.start()")
    ran = programs.run(*words, "call", "proj.add", "--args", "[1, 2]")
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.strip()) == 36


def test_the_variable_of_the_environment_does_the_same(programs):
    programs.write(proj=PROJECT.replace("{folder}", str(programs.folder)))
    ran = programs.run("-m", "umbel", "-A", "proj", "report", UMBEL_AS_CELERY="1")
    assert ran.returncode == 0, ran.stderr


def test_the_runner_says_how_it_is_used(programs):
    ran = programs.run("-m", "umbel.contrib.celery_alias")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Usage: python -m umbel.contrib.celery_alias (-m MODULE | SCRIPT)")


def test_tools_that_freeze_programs_are_told_the_modules():
    from umbel.contrib.celery_alias import modules

    assert {"umbel.app", "umbel.result", "umbel.contrib.celery_alias.extras"} <= set(modules())
