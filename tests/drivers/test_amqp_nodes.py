"""Several nodes of one RabbitMQ."""

import logging
import socket
import time

import pytest

from umbel import Umbel
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured

amqp = pytest.importorskip("umbel.drivers.amqp")
from umbel.drivers.amqp.nodes import nodes_of  # noqa: E402

NOBODY = "amqp://127.0.0.1:1//"


@pytest.fixture
def silent():
    """A node that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"amqp://127.0.0.1:{server.getsockname()[1]}//"


@pytest.mark.amqp
@pytest.mark.parametrize("strategy", [None, "round-robin", "shuffle"])
def test_the_first_node_that_answers_is_taken(amqp_url, silent, strategy):
    nodes = nodes_of(f"{NOBODY};{silent};{amqp_url}", {"failover_strategy": strategy})
    connection = nodes.connect(name="test", deadline=time.monotonic() + 6)
    assert connection.lost is None
    connection.close()


@pytest.mark.amqp
def test_the_node_that_answered_is_asked_first_the_next_time(amqp_url, silent):
    nodes = nodes_of(f"{silent};{amqp_url}", {})
    nodes.connect(name="test", deadline=time.monotonic() + 4).close()
    begun = time.monotonic()
    nodes.connect(name="test", deadline=time.monotonic() + 4).close()
    assert time.monotonic() - begun < 1.5


def test_there_is_one_deadline_for_all_nodes(silent):
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"No node of RabbitMQ answers\. .*127\.0\.0\.1:1 .*did not answer in time") as caught:
        nodes_of(f"{silent};{NOBODY};{silent}", {}).connect(name="test", deadline=begun + 1)
    assert 0.9 < time.monotonic() - begun < 2.5
    assert caught.value.unreachable


@pytest.mark.amqp
def test_a_refusal_of_one_node_is_that_of_all(amqp_url):
    wrong = amqp_url.replace("guest:guest", "guest:wrong")
    with pytest.raises(BrokerUnavailable, match="refused the user 'guest'"):
        nodes_of(f"{wrong};{amqp_url}", {}).connect(name="test", deadline=time.monotonic() + 10)


def test_an_unknown_strategy_is_named():
    with pytest.raises(ImproperlyConfigured, match="broker_failover_strategy is 'best'"):
        nodes_of(NOBODY, {"failover_strategy": "best"})


@pytest.mark.amqp
@pytest.mark.parametrize("joined", [True, False])
def test_an_app_takes_several_urls(amqp_url, joined):
    urls = [NOBODY, amqp_url]
    app = Umbel(broker=None, broker_url=";".join(urls) if joined else urls, broker_publish_timeout=5.0, task_default_queue="test-nodes")
    app.task(lambda: None, name="noop")
    app.tasks["noop"].delay()
    assert app.broker.purge("test-nodes") == 1
    app.close()


def test_of_several_urls_of_another_broker_the_first_is_used_with_one_warning(caplog):
    app = Umbel()
    app.conf.broker_url = ["memory://several", "redis://me:secret@localhost/0"]
    with caplog.at_level(logging.WARNING):
        assert {app.broker_url() for _ in range(3)} == {"memory://several"}
        app.conf.broker_url = "memory://several;redis://me:secret@localhost/0"
        assert app.broker_url() == "memory://several"
    assert caplog.text.count("broker_url names 2 brokers, and only the first is used: memory://several") == 1
    assert "secret" not in caplog.text
