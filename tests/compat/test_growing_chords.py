"""`add_to_chord` and `replace` in members of chords that Celery's producers have made."""

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

ADDED = """
from celery import chord
def values(*header): return chord(header, collect.s()).apply_async().get(timeout=15)
print(values(adds_more.s(3), add.s(1, 1)))
print(values(add.s(1, 1), adds_more.s(2), adds_more.s(1)))
print(values(adds_more.s(2, flaky=1), add.s(1, 1)))
print(values(adds_chain.s(), add.s(1, 1)))
try: print(adds_more.s(1).apply_async().get(timeout=15))
except ValueError as exc: print(exc)
"""
REPLACED = """
from celery import chain, chord
def value(sig): return sig.apply_async().get(timeout=15)
print(value(chord([becomes.s('task'), add.s(1, 1)], collect.s())))
print(value(chain(becomes.s('task'), echo.s(1), becomes.s('chain'), echo.s(2))))
print(value(chord([becomes.s('chain'), becomes.s('chord'), becomes.s('group')], collect.s())))
print(value(chord([add.s(1, 1), chain(add.s(1, 1), becomes.s('chord'), echo.s())], chain(becomes.s('task'), echo.s()))))
print(value(chord([chord([add.s(1, 1), add.s(2, 2)], chain(total.s(), add.s(1))), add.s(3, 3)], collect.s())))
"""


@pytest.fixture(scope="module", params=[pytest.param("celery", marks=pytest.mark.slow), "umbel", "both"])
def fleet(request, new_fleet):
    fleet = new_fleet()
    workers = [fleet.worker(each, "-P", "solo") for each in (["celery", "umbel"] if request.param == "both" else [request.param])]
    for worker in workers:
        worker.waits_to_print("ready.")
    yield fleet
    for worker in workers:
        worker.send(15)
        assert worker.exit_code() == 0, worker.tail()


def test_members_are_added_to_a_chord_of_a_celery_producer(fleet):
    assert fleet.script("celery", ADDED) == [
        "[0, 1, 2, 2, 'added']",
        "[0, 0, 1, 2, 'added', 'added']",
        "[0, 1, 2, 'added']",
        "[2, 6, 'added']",
        "Current task is not member of any chord",
    ]


def test_what_replaces_a_member_is_a_member(fleet):
    assert fleet.script("celery", REPLACED) == [
        "[2, [['task'], {}]]",
        "[[[[[['chain', [[[['task'], {}], 1], {}]], {}], 'then'], {}], 2], {}]",
        "[23, [11, 21], [[[['chain'], {}], 'then'], {}]]",
        "[[[['task', [2, [[23], {}]]], {}]], {}]",
        "[6, 7]",
    ]


TABLES = """
from celery import chord
header = [adds_more.s(1).set(task_id='adds'), add.s(1, 1)]
print(chord(header, collect.s()).apply_async().get(timeout=15, propagate=False))
"""


def test_a_chord_on_tables_takes_no_further_members_and_says_why(new_fleet, tmp_path):
    fleet = new_fleet(result_chord_retry_interval=0.1)
    fleet.results = f"db+sqlite:///{tmp_path}/results.sqlite3"
    with fleet.worker("umbel", "-P", "solo"):
        (said,) = fleet.script("celery", TABLES)
    assert "NotImplementedError" in said
    assert "can take no further members" in said
