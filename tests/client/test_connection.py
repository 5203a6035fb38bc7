"""`app.connection()`: what tools ask of the broker."""

import socket

import pytest

from umbel import Celery, uuid
from umbel.exceptions import BrokerUnavailable, ImproperlyConfigured, NotSupported, OperationalError

CALLS = ("connection", "connection_for_read", "connection_for_write")


@pytest.fixture
def refused():
    """The URL of a Redis that refuses connections: its port is bound and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://:secret@127.0.0.1:{bound.getsockname()[1]}/3"


@pytest.mark.parametrize("call", CALLS)
def test_a_tool_sees_the_kind_of_the_broker_without_connecting(call, refused):
    with Celery("c", broker=refused) as app, getattr(app, call)() as connection:
        assert connection.transport.driver_type == connection.transport.driver_name == "redis"
        assert not connection.connected


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("amqp://h//", "amqp"),
        ("memory://x", "memory"),
        ("sqlite:////x", "sqlite"),
        ("postgresql://h/d", "postgresql"),
        ("redis+cluster://h:1", "redis"),
        ("sentinel://h:1;sentinel://i:1", "redis"),
    ],
)
def test_each_broker_has_a_kind(url, kind):
    with Celery("c", broker=url) as app:
        assert app.connection().transport.driver_type == kind


def test_the_address_has_its_password_only_if_asked(refused):
    with Celery("c", broker=refused) as app:
        connection = app.connection()
        assert "secret" not in connection.as_uri() + repr(connection)
        assert connection.as_uri(include_password=True) == refused


def test_a_broker_that_answers_is_connected_until_it_is_released():
    with Celery("c", broker=f"memory://{uuid()}") as app:
        broker = app.broker
        with app.connection() as connection:
            assert connection.ensure_connection(max_retries=3) is connection
            assert connection.connected
        assert not connection.connected
        assert app.broker is broker


def test_a_broker_that_does_not_answer_is_tried_as_often_as_was_asked(refused):
    heard = []
    with Celery("c", broker=refused) as app:
        with pytest.raises(OperationalError, match=r"127\.0\.0\.1"):
            app.connection().ensure_connection(lambda exc, pause: heard.append((type(exc), pause)), 2, 0, 0.01)
        assert heard == [(BrokerUnavailable, 0), (BrokerUnavailable, 0.01)]
        with pytest.raises(BrokerUnavailable):
            app.connection().ensure_connection(timeout=0.05, interval_start=0.02, interval_step=0)
        with pytest.raises(BrokerUnavailable):
            app.connection().ensure_connection()


def test_another_broker_and_options_are_refused_and_it_is_said_what_to_do(refused):
    with Celery("c", broker=refused) as app:
        assert app.connection(refused).as_uri(include_password=True) == refused
        with pytest.raises(NotSupported, match=r"Umbel\(broker=") as told:
            app.connection_for_write("redis://:hidden@elsewhere/1")
        assert "secret" not in str(told.value)
        assert "hidden" not in str(told.value)
        with pytest.raises(NotSupported, match=r"heartbeat=.*broker_transport_options"):
            app.connection(heartbeat=5)


def test_an_app_without_a_broker_has_no_kind_of_it_and_says_what_to_set_when_it_is_needed():
    with Celery("c") as app, app.connection() as connection:
        assert connection.transport.driver_type == "N/A"
        with pytest.raises(ImproperlyConfigured, match="broker_url"):
            connection.ensure_connection()
