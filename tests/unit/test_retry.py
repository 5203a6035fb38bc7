from random import Random

import pytest

from umbel.exceptions import Ignore, Reject, Retry
from umbel.retry import RetryPolicy


def test_a_listed_exception_and_its_children_retry():
    policy = RetryPolicy(autoretry_for=(OSError,))
    assert policy.covers(ConnectionError())
    assert not policy.covers(ValueError())


def test_an_excepted_child_does_not_retry():
    policy = RetryPolicy(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,))
    assert not policy.covers(FileNotFoundError())
    assert policy.covers(PermissionError())


def test_nothing_retries_by_itself_unless_it_is_listed():
    assert not RetryPolicy().covers(Exception())


@pytest.mark.parametrize("predicate", [Retry(), Ignore(), Reject("no")])
def test_what_decides_its_own_fate_is_never_retried(predicate):
    assert not RetryPolicy(autoretry_for=(Exception,)).covers(predicate)


def test_without_backoff_each_delay_is_the_default():
    assert RetryPolicy(default_delay=7).delay(0, Random(1)) == 7
    assert RetryPolicy(default_delay=0).delay(9, Random(1)) == 0


def test_backoff_doubles_up_to_its_maximum():
    policy = RetryPolicy(backoff=True, jitter=False, backoff_max=10)
    assert [policy.delay(retries, Random(1)) for retries in range(6)] == [1, 2, 4, 8, 10, 10]


def test_the_factor_of_a_backoff_is_a_whole_number_of_at_least_one():
    assert RetryPolicy(backoff=5, jitter=False).delay(1, Random(1)) == 10
    assert RetryPolicy(backoff=0.2, jitter=False).delay(1, Random(1)) == 2


def test_jitter_spreads_a_delay_from_nothing_to_all_of_it():
    policy = RetryPolicy(backoff=2)
    assert {policy.delay(1, Random(seed)) for seed in range(200)} == {0, 1, 2, 3, 4}


def test_a_task_that_was_retried_without_end_still_has_a_delay():
    assert RetryPolicy(backoff=3, jitter=False).delay(5000, Random(1)) == 600


def test_a_forged_count_of_retries_costs_no_time_and_no_memory():
    policy = RetryPolicy(backoff=1, jitter=False)
    assert policy.delay(2**31 - 1, Random(1)) == 600.0
