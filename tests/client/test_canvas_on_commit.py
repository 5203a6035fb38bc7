"""Canvases that are sent when Django's transaction commits; with `task_always_eager` they run then."""

import textwrap

from tests.client.test_app import DJANGO

TASKS = """
from umbel import chain, chord, group
@app.task
def add(x, y): return x + y
@app.task
def total(numbers): return sum(numbers)
@app.task
def fails(*_): raise ValueError("no")
ran = []
@app.task
def note(x): ran.append(x); return x
"""


def script(python, text):
    return python(DJANGO + TASKS + textwrap.dedent(text))


def test_an_eager_canvas_on_commit_runs_at_the_commit_and_its_result_is_there_then(python):
    assert script(
        python,
        """
        app.conf.task_always_eager = True
        canvases = [
            add.s(1, 2), add.s(1, 2) | add.s(3), group(add.s(1, 1), add.s(2, 2)), chord([add.s(1, 1), add.s(2, 2)], total.s()),
            add.s(1, 2) | group(add.s(1), add.s(2)) | total.s(),
        ]
        for canvas in canvases:
            with transaction.atomic():
                result = canvas.delay_on_commit()
                before = result.ready()
                try:
                    result.get(timeout=1)
                except RuntimeError as exc:
                    said = "has not run: with task_always_eager it runs when the transaction commits" in str(exc)
            print(before, said, result.successful(), result.get(timeout=1))
        for canvas in (add.s(1, 2) | add.s(3), chord([add.s(1, 1)] * 2, total.s())):
            print(canvas.delay_on_commit().parent.get(timeout=1))
        """,
    ) == [
        "False True True 3", "False True True 6", "False True True [2, 4]", "False True True 6", "False True True 9", "3", "[2, 2]",
    ]  # fmt: skip


def test_an_eager_canvas_on_commit_does_not_run_if_the_transaction_is_rolled_back(python):
    assert script(
        python,
        """
        app.conf.task_always_eager = True
        try:
            with transaction.atomic():
                result = group(note.s(1), note.s(2)).delay_on_commit()
                raise KeyError
        except KeyError:
            print(ran, result.ready(), [each.state for each in result])
        """,
    ) == ["[] False ['PENDING', 'PENDING']"]


def test_an_eager_canvas_on_commit_that_fails_says_so_to_its_result_also_where_the_commit_raises_it(python):
    assert script(
        python,
        """
        app.conf.task_always_eager = True
        for app.conf.task_eager_propagates in (False, True):
            for canvas in (fails.s(), note.s(1) | fails.s() | note.s()):
                raised = None
                try:
                    with transaction.atomic():
                        result = canvas.delay_on_commit()
                except ValueError as exc:
                    raised = exc
                print(result.state, repr(result.result), repr(raised))
        try:
            with transaction.atomic():
                result = fails.delay_on_commit()
        except ValueError:
            print(result.state)
        print(ran)
        """,
    ) == [
        "FAILURE ValueError('no') None", "FAILURE ValueError('no') None", "FAILURE ValueError('no') ValueError('no')",
        "FAILURE ValueError('no') ValueError('no')", "FAILURE", "[1, 1]",
    ]  # fmt: skip


def test_an_eager_canvas_on_commit_runs_in_a_test_case_of_django_where_its_callbacks_are_captured(python):
    assert script(
        python,
        """
        import unittest
        from django.test import TestCase
        app.conf.task_always_eager = True
        class Case(TestCase):
            def test(self):
                with self.captureOnCommitCallbacks(execute=True) as callbacks:
                    result = (add.s(1, 2) | group(add.s(1), add.s(2)) | total.s()).delay_on_commit()
                    assert not result.ready()
                assert result.get(timeout=1) == 9 and len(callbacks) == 1
        print(unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Case)).wasSuccessful())
        """,
    ) == ["True"]


def test_a_canvas_on_commit_that_cannot_be_sent_is_refused_at_the_call_and_not_after_the_commit(python):
    assert script(
        python,
        """
        for app.conf.task_always_eager in (False, True):
            for canvas in (add.s(), add.s(1, {1}), add.s(1, 2) | add.s({1}), group(add.s(1), add.s(1, 2)), chord([add.s(1, 1)])):
                with transaction.atomic():
                    try:
                        canvas.delay_on_commit()
                    except Exception as exc:
                        print(type(exc).__name__, end=" ")
        app.conf.task_always_eager = False
        with transaction.atomic():
            (add.s(1, 2) | add.s(3)).delay_on_commit()
            print(ready())
        print(ready())
        """,
    ) == ["TypeError EncodeError EncodeError TypeError TypeError " * 2 + "0", "1"]  # fmt: skip
