"""A server that comes back with older data than it had: a replica that lagged, or a snapshot. Here it is a snapshot."""

import contextlib

import pytest

pytest.importorskip("redis")

from tests.processes import wait_for
from tests.redis_family import processes

from umbel.drivers import open_broker
from umbel.exceptions import BrokerUnavailable
from umbel.testing.conformance.base import ids_of, item

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]


@pytest.fixture
def server(tmp_path):
    with processes.running(tmp_path / "redis") as server:
        yield server


def goes_back(server, *brokers):
    server.kill()
    server.start()
    for broker in brokers:
        with contextlib.suppress(BrokerUnavailable):  # its connection was to the server before
            broker.open()


def test_owners_that_live_are_not_taken_for_dead_in_a_table_that_is_older_than_they_know(server):
    url = f"redis://127.0.0.1:{server.port}/0"
    with contextlib.closing(open_broker(url)) as one, contextlib.closing(open_broker(url)) as other:
        for broker, owner in ((one, "one"), (other, "other")):
            broker.publish([item("q", owner)])
            broker.join(owner, ["q"], lease=0.3)
            assert ids_of(broker.fetch("q", 1, owner=owner, seq=1)) == [owner]
        server.ask("SAVE")
        ends = server.ask("ZSCORE", "{q}.owners", "other")
        for broker, owner in ((one, "one"), (other, "other")):
            assert broker.renew(owner, ["q"], lease=60)
        goes_back(server, one, other)
        wait_for(lambda: server.ask("TIME")[0] * 1000 > ends, 5)
        assert not one.recover("q", owner="one", limit=9).deliveries
        with pytest.raises(BrokerUnavailable, match="gone back to an older state"):
            one.renew("one", ["q"], lease=60)
        with pytest.raises(BrokerUnavailable, match="gone back to an older state"):
            other.renew("other", ["q"], lease=60)
        for broker, owner in ((one, "one"), (other, "other")):
            assert broker.renew(owner, ["q"], lease=60)
        assert not one.recover("q", owner="one", limit=9).deliveries
        assert one.depth(["q"])["q"].claimed == 2


def test_who_is_dead_is_recovered_though_the_state_is_older(server):
    url = f"redis://127.0.0.1:{server.port}/0"
    with contextlib.closing(open_broker(url)) as one, contextlib.closing(open_broker(url)) as dead:
        dead.publish([item("q", "a")])
        dead.join("dead", ["q"], lease=0.1)
        assert dead.fetch("q", 1, owner="dead", seq=1)
        one.join("one", ["q"], lease=60)
        server.ask("SAVE")
        assert one.renew("one", ["q"], lease=61)
        goes_back(server, one)
        with pytest.raises(BrokerUnavailable, match="gone back"):
            one.renew("one", ["q"], lease=60)
        wait_for(lambda: ids_of(one.recover("q", owner="one", limit=9).deliveries) == ["a"], 5)
