"""The fixtures of `umbel.contrib.pytest`, in a run of pytest of their own: a small suite that was written for Celery."""

import textwrap

import pytest

CONFTEST = "import umbel; umbel.install_as_celery()\npytest_plugins = ('celery.contrib.pytest',)\n"

SUITE = """
    import threading
    import time

    import pytest
    from celery import Task, current_app, shared_task
    from celery.exceptions import SoftTimeLimitExceeded

    main = threading.active_count()

    @shared_task
    def mul(x, y):
        return x * y

    @shared_task(soft_time_limit=0.2)
    def slow():
        while True:
            time.sleep(0.01)

    @shared_task
    async def later(x):
        return x

    class Named(Task):
        name = "named"
        def run(self):
            return "named"

    @pytest.fixture(scope="session")
    def celery_class_tasks():
        return [Named]

    @pytest.fixture(scope="session")
    def celery_config():
        return {"task_default_queue": "tests"}

    def test_a_worker_runs_tasks(celery_app, celery_worker):
        @celery_app.task
        def add(x, y):
            return x + y
        celery_worker.reload()
        assert add.delay(1, 2).get(timeout=60) == 3
        assert mul.delay(4, 5).get(timeout=60) == 20
        assert later.delay(7).get(timeout=60) == 7
        with pytest.raises(SoftTimeLimitExceeded):
            slow.delay().get(timeout=60)

    def test_no_thread_is_left():
        assert threading.active_count() == main, threading.enumerate()

    def test_messages_of_one_test_do_not_reach_the_next(celery_app):
        mul.delay(1, 1)

    def test_there_is_none(celery_app):
        assert celery_app.broker.depth(["tests"])["tests"].ready == 0

    @pytest.mark.celery(task_default_queue="marked")
    def test_a_marker_changes_settings(celery_app):
        assert celery_app.conf.task_default_queue == "marked"

    def test_the_app_is_the_current_one(celery_app):
        assert current_app._get_current_object() is celery_app

    @pytest.mark.parametrize("n", range(3))
    def test_a_worker_serves_all_tests(celery_session_worker, celery_session_app, n):
        assert mul.delay(2, n).get(timeout=60) == 2 * n
        assert celery_session_app.send_task("named").get(timeout=60) == "named"
"""

TRAPPED = """
    import pytest
    from celery import current_app

    @pytest.fixture(scope="session")
    def use_celery_app_trap():
        return True

    def test_the_current_app_is_a_trap(celery_app):
        with pytest.raises(RuntimeError, match="depends on current_app"):
            current_app.conf

    def test_unless_a_test_says_that_it_needs_it(celery_app, depends_on_current_app):
        assert current_app.conf is celery_app.conf
"""

THREADS = """
    import threading
    import pytest

    @pytest.fixture(scope="session")
    def celery_worker_pool():
        return "threads"

    @pytest.fixture(scope="session")
    def celery_worker_parameters():
        return {"concurrency": 2}

    def test_two_tasks_run_at_once(celery_app, celery_worker):
        meet = threading.Barrier(2)

        @celery_app.task
        def wait():
            meet.wait(10)
            return threading.current_thread().name

        first, second = wait.delay(), wait.delay()
        assert {first.get(timeout=60), second.get(timeout=60)} == {"task-1", "task-2"}
"""


@pytest.mark.parametrize(("suite", "passed"), [(SUITE, 9), (TRAPPED, 2), (THREADS, 1)])
def test_a_suite_that_was_written_for_celery_passes(programs, suite, passed):
    programs.write(conftest=CONFTEST, test_suite=textwrap.dedent(suite))
    ran = programs.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert f"{passed} passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_fixtures_need_no_alias(programs):
    programs.write(
        conftest="pytest_plugins = ('umbel.contrib.pytest',)",
        test_suite="""
            def test_it(celery_app, celery_worker):
                @celery_app.task
                def add(x, y):
                    return x + y
                assert add.delay(1, 2).get(timeout=60) == 3
        """,
    )
    ran = programs.run("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_run_under_the_runner_needs_no_line_in_the_suite(programs):
    programs.write(test_suite="from celery import Celery\ndef test_it(celery_app): assert isinstance(celery_app, Celery)")
    ran = programs.run("-m", "umbel.contrib.celery_alias", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "celery.contrib.pytest")
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_without_workers_their_tests_are_skipped(programs):
    programs.write(conftest="pytest_plugins = ('umbel.contrib.pytest',)", test_suite="def test_it(celery_worker): pass")
    ran = programs.run("-m", "pytest", "-q", "-p", "no:cacheprovider", NO_WORKER="1")
    assert "1 skipped" in ran.stdout, ran.stdout
