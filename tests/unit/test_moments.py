import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from umbel.moments import moment

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (10, NOW + 10),
        (0.25, NOW + 0.25),
        (-5, NOW - 5),
        (timedelta(minutes=1), NOW + 60),
        (datetime(2023, 11, 14, 22, 13, 20), NOW),
        (datetime(2023, 11, 14, 23, 13, 20, tzinfo=ZoneInfo("Europe/Berlin")), NOW),
        ("2023-11-14T22:13:20Z", NOW),
        (datetime.max.replace(tzinfo=UTC), 253402300800.0),
    ],
)
def test_a_time_may_be_said_in_many_ways(value, at):
    assert moment(value, NOW, UTC).at == pytest.approx(at)


@pytest.mark.parametrize("value", [1e12, 1e300, float("inf"), float("nan"), timedelta.max])
def test_a_time_after_the_last_year_is_refused_in_a_sentence(value):
    with pytest.raises(ValueError, match=r"A time .* s from now cannot be written: .* The last year is 9999\."):
        moment(value, NOW, UTC)


@pytest.mark.parametrize(("value", "error"), [("5", ValueError), ("soon", ValueError), ([5], TypeError)])
def test_what_is_no_time_is_refused_with_what_is_one(value, error):
    with pytest.raises(error, match=re.escape(f"{value!r} is not a time. Give seconds from now as a number")):
        moment(value, NOW, UTC)


def test_a_time_too_far_in_the_past_is_refused_as_in_celery():
    with pytest.raises(ValueError, match="too far in the past"):
        moment(-(2.0**31) - 1, NOW, UTC)
