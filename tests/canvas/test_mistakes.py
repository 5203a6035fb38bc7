"""What users write by mistake is an error at the call that says what it is and what to write."""

import re

import pytest

from umbel import Umbel, chain, chord, group, signature, uuid


@pytest.fixture
def app():
    with Umbel("mistaken", broker=f"memory://{uuid()}", backend="memory://", set_as_current=False) as app:
        app.task(name="add")(lambda x, y: x + y)
        app.task(name="total")(sum)
        app.task(name="echo", typing=False)(lambda *args, **kwargs: [args, kwargs])
        yield app


@pytest.fixture
def add(app):
    return app.tasks["add"]


MISTAKES = {
    "a task": (group, "<@task: add of mistaken> is a task, and no signature. Write add.s(...)."),
    "a task in a chain": (lambda add: chain(add.s(1, 2), add), "is a task, and no signature. Write add.s(...)."),
    "a task alone in a chain": (chain, "is a task, and no signature. Write add.s(...)."),
    "a task behind a bar": (lambda add: add.s(1, 2) | add, "is a task, and no signature. Write add.s(...)."),
    "None behind a bar": (lambda add: add.s(1, 2) | None, "None is no signature. Make one with task.s(...)."),
    "a result": (
        lambda add: group([add.delay(1, 2)]),
        "is the result of a call that is sent already. Write task.s(...), and not task.delay(...)",
    ),
    "a name": (
        lambda add: chain("add", add.s(1)),
        "'add' is no signature. Make one of a task's name with app.signature('add', args=(...)).",
    ),
    "a name alone": (lambda add: chain("add"), "'add' is no signature. Make one of a task's name with"),
    "a value": (lambda add: group([add(1, 2)]), "3 is no signature. Make one with task.s(...); task(...) runs it here."),
    "None": (lambda add: group(add.s(1, 2), None), "None is no signature. Make one with task.s(...)."),
    "None for all": (lambda add: group(None), "None is no signature. Make one with task.s(...)."),
    "None for all steps": (lambda add: chain(None), "None is no signature. Make one with task.s(...)."),
    "None as a callback": (lambda add: add.s(1, 2).link(None), "None is no signature. Make one with task.s(...)."),
    "a task as an errback": (lambda add: add.s(1, 2).on_error(add), "is a task, and no signature. Write add.s(...)."),
    "a function as an errback": (lambda add: chain(add.s(1, 2), add.s(1)).on_error(print), "is no signature. Make one with task.s(...)"),
    "text for arguments": (
        lambda add: add.signature(args=("ab")),
        "The arguments of add are 'ab'. Give a list or a tuple: of one argument it is ('ab',).",
    ),
    "a number for arguments": (
        lambda add: add.signature(args=5),
        "The arguments of add are 5. Give a list or a tuple: of one argument it is (5,).",
    ),
    "a list of keywords": (lambda add: add.signature(kwargs=["x"]), "The keyword arguments of add are ['x']. Give a dict: {'x': 1}."),
    "a number for a task": (lambda add: signature(5), "5 is neither a task nor the name of one."),
    "a callback of a group": (
        lambda add: group(add.s(1, 2)).apply_async(link=add.s(1)),
        "A group has no value that a callback could start with. Make it a chord: group(...) | callback.",
    ),
    "an errback of a group": (
        lambda add: group(add.s(1, 2)).apply_async(link_error=add.s(1)),
        "Of a group each member fails by itself. Put the errback on all of them: group(...).on_error(errback).",
    ),
    "a chord that runs here without a body": (
        lambda add: chord([add.s(1, 2)]).apply(),
        "A chord needs a body. Give it: chord(header)(body).",
    ),
    "chunks of nothing": (lambda add: add.chunks([(1, 2)], 0), "Chunks have 1 or more calls each, not 0."),
    "chunks of less": (lambda add: add.chunks([(1, 2)], -1), "Chunks have 1 or more calls each, not -1."),
    "chunks of no list": (lambda add: add.chunks(5, 2), "5 holds no calls: give a list, or anything else that can be gone through."),
    "a map of no list": (lambda add: add.map(None), "None holds no calls: give a list, or anything else that can be gone through."),
    "a queue that is a number": (
        lambda add: (add.s(1, 2) | add.s(3).set(queue=5)).delay(),
        "The option queue of add is 5. Give the name of a queue.",
    ),
}


@pytest.mark.parametrize("eager", [False, True], ids=["sent", "eager"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_the_call_and_with_what_to_write(app, add, name, eager):
    app.conf.task_always_eager = eager
    if eager and name == "a queue that is a number":
        pytest.skip("an eager call goes to no queue")
    make, says = MISTAKES[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(says)):
        make(add)


def test_a_signature_that_is_linked_to_itself_is_refused(add):
    sig = add.s(1, 2)
    with pytest.raises(ValueError, match=r"add\(1, 2\) cannot follow itself"):
        sig.link(sig)
    assert sig.options.get("link") is None


def test_a_signature_as_a_dict_may_follow_behind_a_bar(app, add):
    assert (add.s(1, 2) | dict(add.s(3))).apply().get() == 6


@pytest.mark.parametrize("eager", [False, True])
def test_what_no_message_can_hold_is_refused_in_the_errback_too(app, add, eager):
    from umbel.exceptions import EncodeError

    app.conf.task_always_eager = eager
    echo = app.tasks["echo"]
    for canvas in (add.s(1, 2).on_error(echo.s(object())), add.s(1, 2) | echo.s(object()), chord([add.s(1, 2)], echo.s(x={(1, 2): 3}))):
        with pytest.raises(EncodeError, match="cannot be sent"):
            canvas.apply_async()


def test_a_long_chain_runs_here_as_it_does_in_a_worker(app, add):
    steps = chain(add.s(1, 2), *(add.s(1) for _ in range(1500)))
    assert steps.apply().get() == 1503
