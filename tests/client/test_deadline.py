"""How long a call waits for a broker that does not answer."""

import contextlib
import re
import select
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from umbel import Celery
from umbel.broker import Item
from umbel.drivers import open_broker
from umbel.exceptions import BrokerUnavailable

LIMIT = 1.0  # seconds
SLACK = 0.6  # seconds in which a busy machine lets nobody run


@contextlib.contextmanager
def server(hang_up=0, relay_to=None):
    """A server that hangs up on so many connections. On the others it never says a word, or speaks for another server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, hang_up, relay_to))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def serve(listener, hang_up, relay_to):
    with contextlib.ExitStack() as held, contextlib.suppress(OSError):  # the end of the listener, or of a connection
        for _ in range(hang_up):
            listener.accept()[0].close()
        while True:
            connection = held.enter_context(listener.accept()[0])
            if relay_to is not None:
                relay(connection, held.enter_context(socket.create_connection(relay_to)))


def relay(near, far):
    while ready := select.select([near, far], [], [], 20)[0]:
        for side in ready:
            data = side.recv(65536)
            if not data:
                return
            (far if side is near else near).sendall(data)


def time_to_refusal(url, **options):
    with Celery("deadline", broker=url, broker_publish_timeout=LIMIT) as app:

        @app.task
        def f(): ...

        started = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            f.apply_async(**options)
        return time.monotonic() - started, str(caught.value)


@pytest.mark.parametrize("hang_up", [0, 1, 2, 3])
def test_a_broker_that_falls_silent_at_any_attempt_is_given_up_in_time(hang_up):
    with server(hang_up) as url:
        took, said = time_to_refusal(url)
    assert took < LIMIT + SLACK
    assert "does not answer" in said


def test_many_attempts_are_given_up_in_time_as_well():
    with server() as url:
        took, _ = time_to_refusal(url, retry_policy={"max_retries": None, "interval_step": 0.05})
    assert took < LIMIT + SLACK


def test_a_refusal_is_told_in_whole_sentences():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    took, said = time_to_refusal(f"redis://127.0.0.1:{port}/0", retry=False)
    assert took < LIMIT
    assert said.endswith("Connection refused. Check that it runs and that the URL is right.")


@pytest.mark.parametrize("hang_up", [0, 1, 3])
def test_a_broker_that_comes_back_between_two_attempts_gets_the_message(redis_url, redis_prefix, hang_up):
    there, options = urlsplit(redis_url), {"global_keyprefix": redis_prefix}
    with server(hang_up, relay_to=(there.hostname, there.port)) as url, Celery("deadline", broker=url + there.path) as app:
        app.conf.broker_transport_options = options

        @app.task
        def f(): ...

        f.delay()
        app.broker.close()
    with Celery("deadline", broker=redis_url, broker_transport_options=options) as app:
        assert app.broker.depth(["celery"])["celery"].ready == 1


@contextlib.contextmanager
def slow_server(lag, slow):
    """A server that has an answer to each command, those that match *slow* after *lag* seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()
        thread = threading.Thread(target=answer, args=(listener, lag, slow, over))
        thread.start()
        try:
            yield f"redis://me:secret@127.0.0.1:{listener.getsockname()[1]}/3"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answer(listener, lag, slow, over):
    with contextlib.ExitStack() as held, contextlib.suppress(OSError):
        while True:
            connection = held.enter_context(listener.accept()[0])
            with contextlib.suppress(OSError):  # who called has hung up
                while data := connection.recv(65536):
                    for command in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", data):
                        if re.match(slow, command):
                            over.wait(lag)
                        connection.sendall(b":1\r\n" if command in {b"EVALSHA", b"LPUSH"} else b"+OK\r\n")


def test_a_broker_that_takes_its_time_for_each_step_of_connecting_is_given_up_in_time():
    with slow_server(LIMIT * 0.35, b"AUTH|CLIENT|SELECT") as url:
        took, said = time_to_refusal(url)
    assert took < LIMIT + SLACK
    assert "does not answer" in said


@pytest.mark.parametrize("count", [1, 2])
def test_a_broker_that_takes_its_time_for_each_part_of_a_batch_is_given_up_in_time(count):
    items = [Item(raw=b"{}", queue=f"q{n}", id="x") for n in range(5) for _ in range(count)]
    with slow_server(LIMIT * 0.35, b"EVALSHA|LPUSH") as url, contextlib.closing(open_broker(url, timeout=LIMIT)) as broker:
        broker.open()
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            broker.publish(items)
    assert time.monotonic() - started < LIMIT + SLACK
    assert caught.value.maybe_sent
