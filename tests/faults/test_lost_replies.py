"""A reply that is lost in the middle: what was asked for is safe to ask for again."""

import contextlib

import pytest
from msgspec.structs import replace
from tests.faults.proxy import Proxy

from umbel.drivers import open_broker, open_schedule_store
from umbel.exceptions import BrokerUnavailable
from umbel.schedule_store import Row, State
from umbel.testing.conformance.base import item


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.redis), pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request):
    """A proxy before the server, and options that lead to keys or tables of our own."""
    url, own = (request.getfixturevalue(f"{request.param}_{each}") for each in ("url", "prefix" if request.param == "redis" else "schema"))
    with Proxy(url) as proxy:
        yield proxy, {"global_keyprefix" if request.param == "redis" else "schema": own}


def twice(proxy: Proxy, part: bytes, call):
    """Do what a caller does: call again when it is not known whether it was carried out. Some drivers do so themselves."""
    proxy.swallow(part)
    try:
        found = call()
    except BrokerUnavailable:
        found = call()
    assert proxy.swallowed.is_set()
    return found


@pytest.mark.parametrize("later", [None, 4e9])
def test_a_message_with_a_key_whose_publish_had_no_answer_is_sent_again_and_stored_once(place, later):
    proxy, options = place
    with contextlib.closing(open_broker(proxy.url, options=options)) as broker:
        broker.open()
        keyed = replace(item("q", "a", due=later), once="the key", once_for=60)
        twice(proxy, b"the key", lambda: broker.publish([item("q", "before"), keyed]) if later else broker.publish([keyed]))
        depth = broker.depth(["q"])["q"]
        assert (depth.ready if later is None else depth.delayed) == 1


def test_edits_and_states_whose_reply_was_lost_are_repeated_and_change_nothing_more(place):
    proxy, options = place
    with contextlib.closing(open_schedule_store(proxy.url, options=options)) as store:
        mark = store.changed_since(0).mark
        twice(proxy, b"entry one", lambda: store.put([Row("entry one", b"1"), Row("entry two", b"1")]))
        changes = store.changed_since(mark)
        assert [row.name for row in changes.rows] == ["entry one", "entry two"]
        state = State("entry one", 60.0, 1, "id")
        assert twice(proxy, b"entry one", lambda: store.advance([state], fence=3))
        twice(proxy, b"entry one", lambda: store.put([Row("entry one", b"1")]))
        assert store.states(["entry one"]) == {"entry one": state}
        twice(proxy, b"entry two", lambda: store.remove(["entry two"]))
        assert store.changed_since(changes.mark).removed == ["entry two"]
        assert not store.advance([replace(state, slot=120.0)], fence=2)
