import pickle
from datetime import UTC, datetime

import pytest

from umbel import exceptions


def test_a_retry_tells_when_and_why():
    assert str(exceptions.Retry(exc=ValueError("x"), when=1)) == "Retry in 1s: ValueError('x')"
    assert str(exceptions.Retry(when=1.5)) == "Retry in 1.5s"
    assert str(exceptions.Retry(when=datetime(2030, 1, 2, tzinfo=UTC))) == "Retry at 2030-01-02 00:00:00+00:00"


def test_a_message_of_a_retry_is_all_it_says():
    assert str(exceptions.Retry("Task can be retried", ValueError("x"), 3)) == "Task can be retried"


def test_a_retry_without_a_time_does_not_invent_one():
    assert str(exceptions.Retry(exc="why")) == "Retry: why"
    assert exceptions.Retry().humanize() == ""


def test_a_retry_travels_without_its_signature():
    retry = exceptions.Retry("again", ValueError("x"), 3, is_eager=True, sig=lambda: None)
    copy = pickle.loads(pickle.dumps(retry))
    assert (copy.message, repr(copy.exc), copy.when, copy.is_eager, copy.sig) == ("again", "ValueError('x')", 3, True, None)


def test_a_reject_says_what_becomes_of_the_message():
    assert repr(exceptions.Reject("why")) == "reject requeue=False: why"
    assert str(exceptions.Reject("why", requeue=True)) == "reject requeue=True: why"


def test_a_soft_limit_and_a_hard_limit_show_their_arguments():
    assert str(exceptions.SoftTimeLimitExceeded()) == "SoftTimeLimitExceeded()"
    assert str(exceptions.TimeLimitExceeded(1)) == "TimeLimitExceeded(1,)"
    assert repr(exceptions.TimeLimitExceeded(1)) == "TimeLimitExceeded(1)"


def test_exhausted_retries_keep_the_arguments_of_the_task_through_pickle():
    copy = pickle.loads(pickle.dumps(exceptions.MaxRetriesExceededError("no more", task_args=(1,), task_kwargs={"a": 2})))
    assert (str(copy), copy.task_args, copy.task_kwargs) == ("no more", (1,), {"a": 2})


def test_an_unavailable_broker_tells_whether_the_message_may_have_left():
    assert exceptions.BrokerUnavailable("gone").maybe_sent is False
    assert pickle.loads(pickle.dumps(exceptions.BrokerUnavailable("gone", maybe_sent=True))).maybe_sent is True


def test_a_store_error_names_the_task():
    assert repr(exceptions.BackendStoreError("no", state="SUCCESS", task_id="t1")) == "BackendStoreError('no') state:SUCCESS task_id:t1"
    assert repr(exceptions.BackendGetMetaError("no", task_id="t1")) == "BackendGetMetaError('no') task_id:t1"


def test_a_missing_queue_is_told_as_a_sentence():
    assert str(exceptions.QueueNotFound("Queue 'x' missing")) == "Queue 'x' missing"


@pytest.mark.parametrize(
    ("name", "caught_as"),
    [
        ("Retry", "TaskPredicate"),
        ("Ignore", "CeleryError"),
        ("NotRegistered", "TaskError"),
        ("TimeoutError", "TaskError"),
        ("BrokerUnavailable", "OperationalError"),
        ("OperationalError", "KombuError"),
        ("ContentDisallowed", "SerializationError"),
        ("ContentDisallowed", "SerializerNotInstalled"),
        ("EncodeError", "SerializationError"),
        ("BackendStoreError", "BackendError"),
        ("NotSupported", "UmbelError"),
        ("DuplicateTaskNameWarning", "CeleryWarning"),
    ],
)
def test_an_except_clause_written_for_celery_catches(name, caught_as):
    assert issubclass(getattr(exceptions, name), getattr(exceptions, caught_as))


def test_a_stopping_worker_exits_the_interpreter():
    assert issubclass(exceptions.WorkerShutdown, SystemExit)
    assert exceptions.SystemTerminate is exceptions.WorkerTerminate


def test_reraise_keeps_the_given_traceback():
    try:
        raise ValueError("x")  # noqa: TRY301
    except ValueError as error:
        original, traceback = error, error.__traceback__
    with pytest.raises(ValueError) as caught:
        exceptions.reraise(ValueError, original, traceback)
    assert caught.value is original
