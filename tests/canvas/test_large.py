"""Chords of more members than are sent at once: they are made as they are sent, and end whatever happens meanwhile."""

import pytest
from tests.processes import wait_for

from umbel import Umbel, chain, chord, group
from umbel.canvas.large import CHUNK
from umbel.contrib.testing.worker import start_worker
from umbel.exceptions import ChordError
from umbel.result import allow_join_result

MANY = 2 * CHUNK + 300


@pytest.fixture
def app(request):
    with Umbel("large", broker=f"memory://{request.node.name}", backend=f"memory://{request.node.name}", set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y=0):
        if x < 0:
            raise ValueError(x)
        return x + y

    return add


@pytest.fixture
def ends(app):
    @app.task(name="ends")
    def ends(numbers, *more):
        return [len(numbers), numbers[0], numbers[-1], sum(numbers), *more]

    return ends


@pytest.fixture
def sent(app):
    """What the broker has been given."""
    found, publish = [], app.broker.publish

    def seen(items, **how):
        found.extend(items)
        return publish(items, **how)

    app.broker.publish = seen
    return found


def value_of(app, result):
    with start_worker(app, pool="threads", concurrency=2), allow_join_result():
        return result.get(timeout=60)


def test_a_large_chord_is_made_as_it_is_sent_one_batch_ahead(app, add, ends, sent):
    made = []

    def members():
        for i in range(MANY):
            made.append(len(sent))
            yield add.s(i)

    result = chord(members(), ends.s()).apply_async()
    assert made[2 * CHUNK - 1] == 0
    assert made[2 * CHUNK + 1] == CHUNK  # the first batch was on its way before the third was made
    assert len(result.parent) == len({each.id for each in result.parent}) == len(sent) == MANY
    assert value_of(app, result) == [MANY, 0, MANY - 1, sum(range(MANY))]


def test_a_large_chord_says_to_its_parts_what_a_small_one_does(app, add, ends):
    found = []
    for size in (3, MANY):
        body = ends.s("own").set(priority=4)
        canvas = chord([add.s(i) for i in range(size)], body, args=(10,), queue="celery")
        result = canvas.apply_async(task_id=f"body of {size}", link=add.si(1))
        assert result.id == f"body of {size}"
        count, first, last, total, said = value_of(app, result)
        found.append((count - size, first, last - size, total - sum(range(10, 10 + size)), said))
    assert found == [(0, 10, 9, 0, "own")] * 2


def test_members_of_a_large_chord_may_be_canvases(app, add, ends):
    members = [add.s(1), chain(add.s(1), add.s(1)), group(add.s(1), add.s(1)), chord([add.s(1), add.s(0)], ends.s() | add.si(1))]
    canvas = chord((members[i % 4].clone() for i in range(CHUNK + 4)), ends.s() | ends.si([7]))
    assert value_of(app, canvas.apply_async()) == [1, 7, 7, 7]


def test_a_failed_member_of_the_first_batch_fails_a_large_chord_once(app, add, ends):
    told = []

    @app.task(name="note")
    def note(failed):
        told.append(failed)

    body = ends.s().on_error(note.s())
    with start_worker(app, pool="threads", concurrency=2), allow_join_result():
        result = chord((add.s(i - 1) for i in range(MANY)), body).apply_async()
        failure = result.get(timeout=60, propagate=False)
        assert isinstance(failure, ChordError)
        assert f"Dependency {result.parent[0].id} raised ValueError" in str(failure)
        assert [each.get(timeout=60, propagate=False) for each in result.parent][1:] == list(range(MANY - 1))
        wait_for(lambda: told)
    assert told == [result.id]


def test_a_chord_whose_generator_breaks_before_anything_was_sent_leaves_nothing(app, add, ends, sent):
    def members():
        yield from (add.s(i) for i in range(CHUNK + 10))
        raise LookupError("no more")

    with pytest.raises(LookupError):
        chord(members(), ends.s()).apply_async()
    assert sent == []


def test_a_chord_whose_generator_breaks_when_some_were_sent_fails(app, add, ends, sent):
    def members():
        yield from (add.s(i) for i in range(2 * CHUNK + 10))
        raise LookupError("no more")

    with pytest.raises(LookupError):
        chord(members(), ends.s().set(task_id="body")).apply_async()
    assert len(sent) == CHUNK
    with pytest.raises(ChordError, match="raised LookupError"):
        value_of(app, app.AsyncResult("body"))


def test_what_a_generator_gave_can_be_sent_again_if_it_is_not_much(app, add, ends, sent):
    few = chord((add.s(i) for i in range(CHUNK)), ends.s())
    assert len(few.apply_async().parent) == len(few.apply_async().parent) == CHUNK
    for many in (chord((add.s(i) for i in range(CHUNK + 1)), ends.s()), group(add.s(i) for i in range(CHUNK + 1))):
        many.apply_async()
        with pytest.raises(RuntimeError, match="Make a list to send them again"):
            many.apply_async()
    assert len(sent) == 2 * CHUNK + 2 * (CHUNK + 1)
