"""Every state of the model of delivery within its bounds; and that each way to do it wrong is found.

`make chaos` looks further: within the wide bounds.
"""

import pytest
from tests.model import delivery
from tests.model.broker_side import BACKWARDS, FALSE_RECOVERY, LOST_CLAIM
from tests.model.checker import STUCK, Step, TooManyStatesError, check
from tests.model.delivery import Delivery

NARROW = [
    {"messages": 2, "losses": 1},
    {"messages": 2, "crashes": 1},
    {"messages": 2, "slowness": 1},
    {"losses": 1, "slowness": 1},
    {"losses": 1, "stops": 1},
    {"losses": 1, "begins_after_a_crash": True},
    {"crashes": 2, "most": 1},
    {"crashes": 1, "slowness": 1},
    {"outages": 1, "suspensions": 1},
    {"outages": 1, "crashes": 1},
    {"suspensions": 1, "losses": 1},
    {"apart": True, "losses": 1},
    {"apart": True, "messages": 2},
    {"apart": True, "slowness": 1},
]
WIDE = [
    {"apart": True, "crashes": 1, "slowness": 1},
    {"losses": 1, "crashes": 1},
    {"losses": 2, "slowness": 1},
    {"losses": 2, "begins_after_a_crash": True},
    {"messages": 2, "losses": 1, "slowness": 1},
    {"messages": 3, "losses": 1, "limit": 1},
    {"messages": 2, "crashes": 2},
    {"crashes": 3},
    {"crashes": 1, "stops": 1, "slowness": 1},
    {"outages": 1, "losses": 2},
    {"outages": 2, "crashes": 1},
    {"suspensions": 1, "outages": 1, "crashes": 1},
    {"apart": True, "losses": 1, "crashes": 1},
    {"apart": True, "losses": 1, "slowness": 1},
    {"apart": True, "messages": 2, "slowness": 1},
]
WRONG = [
    ("a claim in two steps", {}, delivery.ONE_PLACE),
    ("claims without numbers", {"losses": 1}, STUCK),
    ("a late copy of a claim is carried out", {"losses": 1, "messages": 3, "limit": 1}, delivery.ONE_PLACE),
    ("acknowledged before it is stored", {"apart": True}, delivery.STORED),
    ("no fence", {"losses": 1, "slowness": 1}, LOST_CLAIM),
    ("an older result is stored", {"apart": True, "losses": 1, "slowness": 1}, BACKWARDS),
    ("the lease is checked in another slot", {"losses": 1, "slowness": 1}, LOST_CLAIM),
    ("a renewal is counted from its reply", {"losses": 1}, delivery.DEADLINE),
    ("a start after the deadline", {"slowness": 1}, delivery.ENDED),
    ("a restarted node has its old name", {"crashes": 1}, STUCK),
    ("recovery right after an outage", {"outages": 1}, FALSE_RECOVERY),
    ("who stood still goes on at once", {"suspensions": 1}, FALSE_RECOVERY),
    ("an order to recover is carried out late", {"outages": 1, "losses": 1}, FALSE_RECOVERY),
    ("a recovery without an answer is forgotten", {"losses": 1, "begins_after_a_crash": True}, STUCK),
    ("a death of which nothing is known is counted", {"crashes": 1}, delivery.ATTEMPTS),
]
SLOW = [pytest.param(bounds, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]) for bounds in WIDE]


def named(bounds):
    return " ".join(f"{name}={value}" for name, value in bounds.items()) or "nothing goes wrong"


@pytest.mark.parametrize("bounds", NARROW + SLOW, ids=named)
def test_whatever_goes_wrong_within_the_bounds_no_message_is_lost_doubled_or_stuck(bounds):
    model = Delivery(**bounds)
    report = check(model)
    print(f"{named(bounds)}: {report.states} states, {report.steps} steps")
    assert not report.violated, report.text(model)


@pytest.mark.parametrize(("variant", "bounds", "violated"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_way_to_do_it_wrong_is_found(variant, bounds, violated):
    model = Delivery(variant, **bounds)
    report = check(model)
    assert report.violated == violated, report.text(model)
    assert len(report.trace) > 1
    assert Delivery(**bounds).initial() == report.trace[0][1], "the variant is not wrong in what it starts with"


class Counter:
    """Counts to three; from there it goes nowhere unless a fault sets it back."""

    def initial(self):
        return 0

    def steps(self, state):
        if state < 3:
            yield Step("one more", state + 1)
        yield Step("a fault", 0, fault=True)

    def violated(self, state):
        return None

    def ended(self, state):
        return state == self.end

    def show(self, state):
        return str(state)

    end = 3


def test_the_checker_looks_at_every_state_once():
    report = check(Counter())
    assert (report.states, report.steps, report.violated) == (4, 7, None)


def test_the_checker_finds_a_state_that_only_a_fault_leads_out_of():
    model = Counter()
    model.end = 2
    report = check(model)
    assert report.violated == STUCK
    assert [label for label, _ in report.trace] == ["at the start", "one more", "one more", "one more"]
    assert "  3. one more\n       3" in report.text(model)


def test_the_checker_says_when_there_are_too_many_states():
    with pytest.raises(TooManyStatesError):
        check(Counter(), most=2)
