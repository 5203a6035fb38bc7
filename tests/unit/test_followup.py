"""What follows the end of a task, or of a join: decided as values."""

import pytest

from umbel.backend import Arrival
from umbel.execution.followup import Ending, Steps, after_join, after_task, errback_id
from umbel.flow import Follow, Node, Part, Place

ERRBACK = {"task": "told", "options": {}}
FOLLOW = Follow(steps=(1, 2), parts=(Part(0, 3),), links=(4,), errbacks=(ERRBACK,))
NODE = Node(id="a", signature={"task": "t"}, follow=FOLLOW)


def ended(**what):
    return Ending(flow="f", node=0, id="a", **what)


def test_a_success_starts_steps_and_callbacks_and_goes_to_its_joins():
    steps = after_task(ended(value=b"1"), NODE)
    assert steps == Steps(starts=(1, 2, 4), arrivals=[Arrival(flow="f", join=0, position=3, id="a", value=b"1", failure=b"")])


def test_a_failure_dooms_steps_and_tells_joins_and_errbacks_and_sends_no_callback():
    steps = after_task(ended(failure=b"no"), NODE)
    assert (steps.starts, steps.doomed, steps.errbacks) == ((), (1, 2), (ERRBACK,))
    assert [(each.value, each.failure) for each in steps.arrivals] == [(None, b"no")]


def test_the_errbacks_of_what_was_revoked_hear_nothing():
    assert after_task(ended(failure=b"no", told=False), NODE).errbacks == ()


def test_a_member_without_a_node_goes_to_the_join_that_its_place_names():
    ending = Ending.at(Place(flow="f", part=Part(7, 1)), id="m", value=b"2")
    assert after_task(ending, None) == Steps(arrivals=[Arrival(flow="f", join=7, position=1, id="m", value=b"2", failure=b"")])


def test_of_a_task_whose_workflow_is_gone_nothing_follows():
    assert after_task(ended(value=b"1"), None) == Steps(arrivals=[])


def test_what_is_behind_a_join_starts_with_its_values_or_ends_with_its_failure():
    ending = Ending(flow="f", node=None, id="last", value=b"[1]")
    assert after_join(FOLLOW, ending).starts == (1, 2, 4)
    assert after_join(FOLLOW, Ending(flow="f", node=None, id="last", failure=b"no")).doomed == (1, 2)


@pytest.mark.parametrize(("failed", "position"), [("a", 1), ("b", 0)])
def test_an_errback_has_one_id_for_one_failure_and_another_for_another(failed, position):
    assert errback_id("a", 0, ERRBACK) == errback_id("a", 0, ERRBACK) != errback_id(failed, position, ERRBACK)
    assert errback_id("a", 0, {"options": {"task_id": "given"}}) == "given"
