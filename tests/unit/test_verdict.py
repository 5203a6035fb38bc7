"""What may run, and what follows a death."""

import json

import pytest

from umbel.broker import Delivery, Verb
from umbel.execution.verdict import Postponed, Refused, Request, Void, admit, lost, moment, void
from umbel.task import Task
from umbel.wire.message import Message, encode

NOW = 1_800_000_000.0


class Known(Task):
    name = "known"


TASKS = {"known": Known()}


def delivery(**headers) -> Delivery:
    raw = encode(Message(headers={"task": "known", "id": "1", **headers}, properties={}, body=b"[[], {}, {}]"))
    return Delivery(queue="q", tag="1:1:0", owner="w", raw=raw, fence=1)


def test_a_message_of_a_known_task_may_run():
    request = admit(delivery(), TASKS, NOW)
    assert isinstance(request, Request)
    assert request.task is TASKS["known"]
    assert not request.alone


@pytest.mark.parametrize("marks", [{"suspect": True}, {"attempts": 1}])
def test_what_may_have_killed_its_process_is_sent_alone(marks):
    held = Delivery(queue="q", tag="1:1:0", owner="w", raw=delivery().raw, fence=1, **marks)
    request = admit(held, TASKS, NOW)
    assert isinstance(request, Request)
    assert request.alone


def test_a_message_of_an_unknown_task_is_parked_under_its_name():
    refused = admit(delivery(task="other"), TASKS, NOW)
    assert isinstance(refused, Refused)
    assert (refused.verb, refused.reason) == (Verb.PARK, "other")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", json.dumps({"body": "x", "headers": {"task": 1, "id": 2}}).encode()])
def test_what_cannot_be_read_is_buried_with_the_reason(raw):
    refused = admit(Delivery(queue="q", tag="t", owner="w", raw=raw, fence=1), TASKS, NOW)
    assert isinstance(refused, Refused)
    assert refused.verb is Verb.BURY
    assert refused.reason.startswith("the message cannot be read: ")


def test_what_has_expired_is_void():
    refused = admit(delivery(expires="2027-01-15T07:59:59+00:00"), TASKS, NOW)
    assert isinstance(refused, Void)
    assert (refused.why, refused.request.glance.id) == ("expired", "1")
    assert isinstance(admit(delivery(expires="2027-01-15T08:00:01+00:00"), TASKS, NOW), Request)


@pytest.mark.parametrize("text", ["2027-01-15T08:00:00", "2027-01-15T08:00:00+00:00", "2027-01-15T10:00:00+02:00", "2027-01-15T08:00:00Z"])
def test_a_time_of_expiry_without_an_offset_is_utc_and_with_one_is_that_moment(text):
    assert isinstance(admit(delivery(expires=text), TASKS, NOW), Void), "at its very moment it is too late"
    assert isinstance(admit(delivery(expires=text), TASKS, NOW - 0.001), Request)


def test_what_expires_while_it_waits_in_the_worker_is_void():
    request = admit(delivery(expires="2027-01-15T08:00:05+00:00"), TASKS, NOW)
    assert isinstance(request, Request)
    assert void(request, NOW + 4.9, ()) is None
    assert void(request, NOW + 5, ()) == "expired"


def test_what_expires_before_it_is_due_is_void_when_it_comes():
    assert isinstance(admit(delivery(eta="2027-01-15T08:00:00+00:00", expires="2027-01-15T07:59:00+00:00"), TASKS, NOW), Void)


def test_what_was_revoked_is_void_also_before_it_is_due_and_expiry_is_named_first():
    revoked = admit(delivery(eta="2027-01-15T09:00:00+00:00"), TASKS, NOW, {"1"})
    assert isinstance(revoked, Void)
    assert revoked.why == "revoked"
    both = admit(delivery(expires="2027-01-15T07:59:59+00:00"), TASKS, NOW, {"1"})
    assert isinstance(both, Void)
    assert both.why == "expired"
    assert isinstance(admit(delivery(), TASKS, NOW, {"2"}), Request)


def test_what_a_celery_producer_sent_before_its_time_is_postponed_once():
    eta = "2027-01-15T09:00:00"  # without an offset: UTC
    postponed = admit(delivery(eta=eta), TASKS, NOW)
    assert isinstance(postponed, Postponed)
    assert postponed.due == NOW + 3600
    assert isinstance(admit(delivery(eta=eta, umbel_waited=True), TASKS, NOW), Request), "the broker's clock has decided"


def test_clocks_may_differ_by_a_second():
    assert isinstance(admit(delivery(eta="2027-01-15T08:00:00.900000+00:00"), TASKS, NOW), Request)


@pytest.mark.parametrize("text", ["tomorrow", "2027-13-01"])
def test_a_time_that_is_none_is_an_error(text):
    with pytest.raises(ValueError, match=r"isoformat|month"):
        moment(text)


@pytest.mark.parametrize(
    ("attempts", "acked", "again", "verb", "failed"),
    [
        (1, False, True, Verb.GIVE_BACK, False),
        (2, False, True, Verb.GIVE_BACK, False),
        (3, False, True, Verb.BURY, True),
        (1, True, True, Verb.ACK, True),
        (1, False, False, Verb.ACK, True),
    ],
)
def test_a_task_whose_process_died_runs_again_until_it_has_died_three_times(attempts, acked, again, verb, failed):
    verdict = lost(attempts=attempts, most=3, acked=acked, again=again)
    assert (verdict.verb, verdict.attempts, verdict.failed) == (verb, attempts, failed)


def raw_of(headers: dict, body: str = "W10=", **properties) -> bytes:
    return json.dumps({"body": body, "headers": headers, "properties": {"body_encoding": "base64", **properties}}).encode()


PICKLED_V1 = json.dumps({"body": "gASVAAAA", "content-type": "application/x-python-serialize", "content-encoding": "binary",
                         "headers": {}, "properties": {"body_encoding": "base64"}}).encode()  # fmt: skip
LATER = "2099-01-01T00:00:00"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (PICKLED_V1, "untrusted content"),
        (raw_of({"task": "known", "id": "1", "eta": LATER}, body="a"), "not base64"),
        (raw_of({"task": "known", "id": "1", "eta": LATER, "x": {"__type__": "uuid", "__value__": 1}}), "not a value"),
        (raw_of({"task": "known", "id": "1\n[INFO] forged"}), "printable"),
        (raw_of({"task": "known", "id": "\x1b[2J"}), "printable"),
        (raw_of({"task": "known", "id": "\ud800"}), "printable"),
        (raw_of({"task": "known", "id": "x" * 1025}), "1024"),
        (raw_of({"task": "known", "id": "1", "retries": -1}), "retries"),
        (raw_of({"task": "known", "id": "1", "retries": 1 << 40}), "retries"),
        (raw_of({"task": "known", "id": "1", "timelimit": {}}), "timelimit"),
        (raw_of({"task": "known", "id": "1", "group_index": "0"}), "group_index"),
        (raw_of({"task": "known", "id": "1", "eta": "9" * 5000}), "is not an ISO 8601 time"),
    ],
)
def test_whatever_a_message_holds_it_is_refused_and_nothing_is_raised(raw, reason):
    refused = admit(Delivery(queue="q", tag="t", owner="w", raw=raw, fence=1), TASKS, NOW)
    assert isinstance(refused, Refused)
    assert refused.verb is Verb.BURY
    assert reason in refused.reason
    assert refused.reason.isprintable()
    assert len(refused.reason) < 1100


def test_a_message_above_the_limit_is_buried_with_both_sizes_and_what_to_do():
    held = delivery()
    refused = admit(held, TASKS, NOW, limit=100)
    assert isinstance(refused, Refused)
    assert f"it has {len(held.raw)} bytes; task_message_max_size allows 100 here. Put large data in a store" in refused.reason
    assert isinstance(admit(held, TASKS, NOW, limit=len(held.raw)), Request)


@pytest.mark.parametrize(("said", "meant"), [(10**30, 255), (-5, 0), (None, 0), (9, 9)])
def test_a_priority_counts_as_the_nearest_that_there_is(said, meant):
    request = admit(Delivery(queue="q", tag="t", owner="w", raw=raw_of({"task": "known", "id": "1"}, priority=said), fence=1), TASKS, NOW)
    assert isinstance(request, Request)
    assert request.glance.priority == meant
