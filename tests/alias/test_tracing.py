"""Tools that wrap `build_tracer` or `Worker.workloop`, as Sentry and New Relic do, see each task run."""

TOOL = """
    import functools, sys
    import umbel; umbel.install_as_celery()
    from celery.app import trace
    from billiard.pool import Worker

    build = trace.build_tracer

    def watched(name, task, *args, **kwargs):
        run = task.run
        task.run = functools.wraps(run)(lambda *a, **k: (print("run", name), run(*a, **k))[1])
        tracer = build(name, task, *args, **kwargs)

        def trace(uuid, args, kwargs, request):
            print("trace", uuid == request["id"], list(args), kwargs)
            try:
                return tracer(uuid, args, kwargs, request)
            except ValueError as exc:
                print("raised", exc)
                raise

        return trace

    trace.build_tracer = watched
    workloop = Worker.workloop
    Worker.workloop = lambda self: (workloop(self), print("end"))
"""


def test_a_task_runs_inside_the_tracer_and_what_it_raises_goes_through(programs):
    programs.write(tool=TOOL)
    printed = programs.python(
        """
        import tool
        from celery.contrib.testing.app import TestApp
        from celery.contrib.testing.worker import start_worker
        app = TestApp()

        @app.task(bind=True)
        def half(self, number):
            if number % 2:
                raise ValueError(number)
            return number // 2

        with start_worker(app, perform_ping_check=False):
            assert half.delay(4).get(timeout=60) == 2
            assert isinstance(half.delay(number=3).get(timeout=60, propagate=False), ValueError)
        """,
        installed=False,
    )
    assert printed.splitlines() == [
        "trace True [4] {}", "run celery.tests.half",
        "trace True [] {'number': 3}", "run celery.tests.half", "raised 3", "end",
    ]  # fmt: skip


def test_what_the_class_has_of_its_own_is_told():
    from umbel import Task
    from umbel.contrib.celery_alias.tracing import task_has_custom

    class Mine(Task):
        def __call__(self):
            return None

    assert task_has_custom(Mine(), "__call__")
    assert not task_has_custom(Task(), "__call__")
