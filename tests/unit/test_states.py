from umbel import states
from umbel.states import precedence, state


def test_a_finished_state_counts_more_than_a_running_one():
    assert state(states.SUCCESS) > state(states.STARTED) >= state(states.STARTED)
    assert state(states.PENDING) < state(states.RETRY) <= state(states.RETRY)


def test_a_state_of_the_user_stands_between_failure_and_revoked():
    assert precedence(states.FAILURE) < precedence("PROGRESS") < precedence(states.REVOKED)


def test_a_state_is_still_its_name():
    assert state("SUCCESS") == "SUCCESS"
    assert state("SUCCESS") in states.READY_STATES


def test_no_state_is_both_ready_and_unready():
    assert not states.READY_STATES & states.UNREADY_STATES
    assert states.ALL_STATES <= states.READY_STATES | states.UNREADY_STATES


def test_states_that_are_only_events_are_not_states_of_a_result():
    assert len(states.ALL_STATES) == 7
    assert not {states.REJECTED, states.IGNORED} & states.ALL_STATES
