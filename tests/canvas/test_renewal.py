"""The record of a workflow lives as long as something of it is still to come."""

import json
import time
import uuid

import pytest
from tests.processes import wait_for

from umbel import Umbel, chain, chord
from umbel.canvas.launch import decode_place
from umbel.contrib.testing.worker import start_worker
from umbel.execution.followup import Ending
from umbel.testing.clock import FakeClock
from umbel.worker.releases import follower_of

EXPIRES = 100.0


class Line:
    """An app whose backend has a clock of ours, and the messages that were sent."""

    def __init__(self, app):
        self.app, self.clock, self.sent = app, FakeClock(time.time()), []
        app.backend._clock = self.clock
        app.broker.publish = lambda items, **how: self.sent.extend(items)
        self.follower = follower_of(app, app.conf, may_write=lambda: True, clock=self.clock.now)
        self.t = app.task(name="t", typing=False)(lambda *args: 1)

    def take(self):
        """Take the message that was sent last; return the name and place of its task."""
        headers = json.loads(self.sent.pop().raw)["headers"]
        return headers["id"], decode_place(headers["umbel_flow"])

    def end(self, after, **what):
        """Let the task of the message that was sent last end *after* so many seconds."""
        task_id, place = self.take()
        self.clock.advance(after)
        self.follower.follow([Ending.at(place, id=task_id, **{"value": b"1", **what})])
        return task_id, place


@pytest.fixture
def line():
    url = f"memory://{uuid.uuid4().hex}"
    with Umbel("renew", broker=url, backend=url, set_as_current=False, umbel_flow_expires=EXPIRES) as app:
        yield Line(app)


def test_a_chain_without_joins_goes_on_though_it_takes_longer_than_a_record_lives(line):
    result = chain(line.t.s() for _ in range(12)).apply_async()
    for _ in range(11):
        line.end(0.4 * EXPIRES)
    assert line.take()[0] == result.id


def test_a_record_is_not_written_to_while_a_chain_is_young(line, monkeypatch):
    chain(line.t.s() for _ in range(12)).apply_async()
    monkeypatch.setattr(line.app.backend, "begin_flow", None)
    for _ in range(11):
        line.end(0.01 * EXPIRES)
    line.take()


def test_each_late_step_lets_the_record_live_until_it_has_come(line):
    late = line.t.s().set(countdown=0.8 * EXPIRES)
    result = chain(line.t.s(), late, late, late, line.t.s()).apply_async()
    for after in (0.9, 0.85, 0.85, 0.85):
        line.end(after * EXPIRES)
    assert line.take()[0] == result.id


def test_a_late_member_of_a_header_lets_the_record_live_until_it_has_come(line):
    result = chord([line.t.s().set(countdown=5 * EXPIRES)], line.t.s()).apply_async()
    line.end(5.2 * EXPIRES)
    assert line.take()[0] == result.id


def test_a_retry_lets_the_record_live_until_it_has_come(line):
    result = chain(line.t.s(), line.t.s()).apply_async()
    task_id, place = line.take()
    line.follower.follow([Ending.at(place, id=task_id, until=line.clock.now() + 5 * EXPIRES)])
    assert line.sent == []
    line.clock.advance(5.2 * EXPIRES)
    line.follower.follow([Ending.at(place, id=task_id, value=b"1")])
    assert line.take()[0] == result.id


def test_a_worker_renews_the_record_of_a_step_that_is_retried_late(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    with Umbel("renew", broker=url, backend=url, set_as_current=False, umbel_flow_expires=EXPIRES) as app:

        @app.task(name="later", bind=True)
        def later(self):
            raise self.retry(countdown=1000)

        t = app.task(name="t", typing=False)(lambda *args: 1)
        begin, asked = app.backend.begin_flow, []
        result = chain(later.s(), t.s()).apply_async()

        def noted(flow, nodes, joins, *, expires):
            asked.append((flow, expires))
            begin(flow, nodes, joins, expires=expires)

        monkeypatch.setattr(app.backend, "begin_flow", noted)
        with start_worker(app):
            wait_for(lambda: asked, 20)
            wait_for(lambda: result.parent.state == "RETRY", 20)
    ((flow, expires),) = asked
    assert flow == result.id
    assert 1000 <= expires <= 1000 + EXPIRES
