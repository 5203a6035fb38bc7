"""Canvases that are easily got wrong, here run eagerly; `tests/canvas/test_eager_agrees.py` has any canvas."""

import json
from pathlib import Path

import pytest

from umbel import Umbel, chain, chord, group, signature
from umbel.canvas.fresh import derived, fresh_id
from umbel.exceptions import ChordError
from umbel.wire.jsontypes import dumps


@pytest.fixture
def told():
    return []


@pytest.fixture
def app(request):
    with Umbel("canvas", broker=f"memory://{request.node.name}", backend=f"memory://{request.node.name}", set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y=0):
        return x + y

    return add


@pytest.fixture
def total(app):
    @app.task(name="total")
    def total(numbers):
        return sum(numbers)

    return total


@pytest.fixture
def fails(app):
    @app.task(name="fails", typing=False)
    def fails(*args):
        raise ValueError("no")

    return fails


@pytest.fixture
def note(app, told):
    @app.task(name="note")
    def note(failed):
        told.append(failed)

    return note


def test_a_chord_without_members_starts_its_body_with_an_empty_list(total):
    assert chord([], total.s()).apply().get() == 0


@pytest.mark.parametrize("nothing", [group([]), group([group([])]), group([group([]), group([group([])])])])
def test_a_chain_goes_past_groups_that_have_no_task_however_deep(add, nothing):
    assert chain.of([nothing.clone(), add.s(1, 1)], app=add.app).apply().get() == 2
    assert chain.of([add.s(1, 1), nothing.clone(), add.s(1)]).apply().get() == 3
    assert (add.s(1, 1) | nothing | add.s(1)).apply().get() == 3
    assert (add.s(1, 1) | nothing).apply().get() == 2


def test_a_chord_of_one_member_gives_a_list_of_one(add, total):
    assert (group([add.s(1, 2)]) | total.s()).apply().get() == 3


def test_a_chord_in_a_chord_in_a_chain(add, total):
    inner = chord([add.s(1), add.s(2)], total.s())
    assert chain(add.s(1, 1), chord([inner, add.s(10)], total.s()), add.s(100)).apply().get() == (3 + 4) + 12 + 100


def test_a_chain_of_groups_gives_each_member_the_list_before(add, total):
    assert chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s()), total.s()).apply().get() == 12


def test_a_failing_member_fails_the_body_and_all_behind_it_and_the_errback_hears_once(add, fails, total, note, told):
    result = chain(chord([add.s(1, 1), fails.s()], total.s().on_error(note.s())), add.s(1)).apply()
    with pytest.raises(ChordError, match=r"Dependency .* raised ValueError\('no'\)"):
        result.get(follow_parents=False)
    assert told == [result.parent.id]
    assert result.parent.state == "FAILURE"


def test_a_failure_goes_through_nested_chords(fails, add, total):
    inner = chord([fails.s(), add.s(1, 1)], total.s())
    result = chord([inner, add.s(1, 1)], total.s()).apply()
    with pytest.raises(ChordError, match="ChordError"):
        result.get(follow_parents=False)


def test_an_errback_of_a_whole_chain_hears_once_though_a_chord_is_in_it(add, fails, total, note, told):
    chain(fails.s(), group(add.s(1), add.s(2)), total.s()).on_error(note.s()).apply()
    assert len(told) == 1


def test_the_callback_of_a_group_follows_its_first_member_without_the_value(add, app):
    seen = []
    seen_task = app.task(name="seen", typing=False)(lambda *args: seen.append(args))
    members = group(add.s(1, 1), add.s(2, 2))
    members.link(seen_task.s("first"))
    members.apply()
    assert seen == [("first",)]


def test_a_signature_is_the_same_after_it_was_sent_and_each_sending_has_its_own_ids(add, total):
    canvas = add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()
    before = dumps(canvas)
    first, second = canvas.apply_async(), canvas.apply_async()
    assert first.id != second.id
    assert dumps(canvas) == before


def test_a_clone_shares_nothing_with_the_original(add, note):
    original = add.s(1)
    copied = original.clone()
    copied.link(add.s(5))
    copied.on_error(note.s())
    copied.set(countdown=5)
    assert (original.options, original.kwargs) == ({}, {})


def test_a_frozen_signature_keeps_its_id(add):
    sig = add.s(1, 1)
    assert sig.freeze().id == sig.apply_async().id


def test_a_group_takes_no_callbacks_at_the_call(add, note):
    with pytest.raises(TypeError, match="Make it a chord"):
        group(add.s(1, 1)).apply_async(link=add.s(1))
    with pytest.raises(TypeError, match=r"group\(\.\.\.\)\.on_error\(errback\)"):
        group(add.s(1, 1)).apply_async(link_error=note.s())


def test_an_empty_chain_sends_nothing_and_an_empty_group_has_an_empty_result():
    assert chain().apply_async() is None
    assert len(group([], app=Umbel("e", broker="memory://e", backend="memory://e", set_as_current=False)).apply_async()) == 0


def test_a_task_that_is_replaced_gives_the_value_of_what_replaces_it_to_what_follows(app, add, total):
    @app.task(name="plan", bind=True)
    def plan(self, count):
        raise self.replace(group(add.s(i, i) for i in range(count)))

    result = chain(plan.s(3), total.s()).apply()
    assert result.get() == 6
    assert result.parent.get() == [0, 2, 4]


def test_ids_that_a_running_task_makes_are_the_same_in_its_second_run():
    runs = []
    for _ in range(2):
        with derived("parent"):
            runs.append([fresh_id(), fresh_id()])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 2


def test_a_chord_body_with_a_generator_of_many_members_is_counted(add, total):
    assert chord((add.s(i, 0) for i in range(1000)), total.s()).apply().get() == sum(range(1000))


def test_a_large_group_is_made_as_it_is_sent(app, add):
    made, sent = [], []

    def members():
        for i in range(2000):
            made.append(len(sent))
            yield add.s(i, i)

    publish = app.broker.publish
    app.broker.publish = lambda items, **how: (sent.extend(items), publish(items, **how))[1]
    result = group(members()).apply_async()
    assert len(result) == len(sent) == 2000
    assert made[600] == 500  # the first 500 were on their way before the 501st was made


FIXTURES = Path(__file__).parents[1] / "compat" / "fixtures" / "signatures.json"


@pytest.mark.parametrize("name", ["task", "link", "group", "chain", "chord", "chain_of_group_upgraded", "xmap", "chunks", "stamped"])
def test_a_signature_of_celery_is_read_and_written_unchanged(app, name):
    recorded = json.loads(FIXTURES.read_text())[name]
    assert json.loads(dumps(signature(recorded, app=app))) == recorded
