"""Commands on a broker that cannot tell how much its queues hold."""

import json

import pytest

UNKNOWING = """
from umbel.broker import QueueDepth


class Unknowing:
    def __init__(self, broker):
        self._broker = broker

    def __getattr__(self, name):
        return getattr(self._broker, name)

    def depth(self, queues):
        return {queue: QueueDepth(ready=1200, delayed=None, claimed=None, parked=None, dead=None) for queue in queues}


app.wrap_broker(Unknowing)
"""
BURY = """
from proj import add, app
from umbel.broker import Settlement, Verb

add.delay(1, 2)
app.broker.join("o", ["celery"], lease=60)
(delivery,) = app.broker.fetch("celery", 1, owner="o", seq=1)
app.broker.settle([Settlement(delivery=delivery, verb=Verb.BURY, reason="of a test")])
"""


@pytest.fixture
def unknowing(folder):
    folder.project(more=UNKNOWING)
    return folder


def test_what_the_broker_cannot_tell_is_a_question_mark_and_null_for_programs(unknowing):
    assert unknowing.umbel("-A", "proj", "queues").stdout.splitlines()[1].split() == ["celery", "1,200", "?", "?", "?", "?"]
    said = json.loads(unknowing.umbel("-A", "proj", "queues", "--json").stdout)
    assert said == {"queue": "celery", "ready": 1200, "delayed": None, "claimed": None, "parked": None, "dead": None}


def test_dead_letters_that_cannot_be_counted_are_found_and_sent_again(unknowing):
    nothing = unknowing.umbel("-A", "proj", "dead", "list")
    assert (nothing.returncode, nothing.stderr) == (1, "0 shown of dead letters that the broker cannot count on celery.\n")
    assert unknowing.python(BURY).returncode == 0
    assert "1 shown of dead letters that the broker cannot count on celery." in unknowing.umbel("-A", "proj", "dead", "list").stderr
    several = unknowing.umbel("-A", "proj", "dead", "list", "-Q", "celery,other").stderr
    assert several == "1 shown of dead letters that the broker cannot count (celery ?, other ?).\n"
    assert unknowing.umbel("-A", "proj", "dead", "retry", "--all", "-y").returncode == 0
    assert unknowing.umbel("-A", "proj", "dead", "list").returncode == 1


def test_a_report_names_the_database_of_results_or_says_what_is_missing(folder):
    folder.project(more='\napp.conf.result_backend = "database"\n')
    assert "results: not usable: result_backend is 'database', and database_url is not set." in folder.umbel("-A", "proj", "report").stdout
    folder.project(more='\napp.conf.update(result_backend="database", database_url="mysql://me:geheim@host/x")\n')
    said = folder.umbel("-A", "proj", "report").stdout
    assert "results: db+mysql://me:**@host/x" in said
    assert "geheim" not in said
