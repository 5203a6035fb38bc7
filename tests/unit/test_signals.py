import functools
import gc
import logging

import pytest

from umbel import signals
from umbel.signals import Signal


class Listener:
    def __init__(self):
        self.heard = []

    def hear(self, **kwargs):
        self.heard.append(kwargs)


def echo(**kwargs):
    return kwargs


def fail(**kwargs):
    raise ValueError("boom")


def test_a_signal_without_receivers_is_known_by_one_test():
    signal = Signal()
    assert not signal.receivers
    signal.connect(echo)
    assert signal.receivers
    assert signal.disconnect(echo)
    assert not signal.receivers


def test_a_receiver_gets_the_signal_the_sender_and_the_rest():
    signal = Signal(name="s")
    assert signal.connect(echo) is echo
    assert signal.send(sender="x", a=1) == [(echo, {"signal": signal, "sender": "x", "a": 1})]


def test_connect_is_a_decorator_with_and_without_arguments():
    signal = Signal()

    @signal.connect
    def plain(**kwargs):
        return "plain"

    @signal.connect(sender="a")
    def picky(**kwargs):
        return "picky"

    assert [answer for _, answer in signal.send("a")] == ["plain", "picky"]
    assert [answer for _, answer in signal.send("b")] == ["plain"]


def test_a_function_that_nobody_keeps_disappears():
    signal = Signal()
    signal.connect(lambda **kwargs: 1)
    gc.collect()
    assert not signal.receivers


def test_a_strong_receiver_stays():
    signal = Signal()
    signal.connect(lambda **kwargs: 1, weak=False)
    gc.collect()
    assert [answer for _, answer in signal.send(None)] == [1]


def test_a_bound_method_lives_as_long_as_its_object():
    signal = Signal()
    listener = Listener()
    signal.connect(listener.hear)
    signal.connect(listener.hear)
    signal.send(None)
    assert len(listener.heard) == 1
    del listener
    gc.collect()
    assert not signal.receivers


def test_a_bound_method_can_be_disconnected():
    signal = Signal()
    listener = Listener()
    signal.connect(listener.hear, sender="x")
    assert not signal.disconnect(listener.hear)
    assert signal.disconnect(listener.hear, sender="x")
    assert not signal.disconnect(listener.hear, sender="x")


def test_a_dispatch_uid_is_connected_once():
    signal = Signal()
    first, second = functools.partial(echo, n=1), functools.partial(echo, n=2)
    signal.connect(first, dispatch_uid="u")
    signal.connect(second, dispatch_uid="u")
    assert [answer["n"] for _, answer in signal.send(None)] == [1]
    assert signal.disconnect(dispatch_uid="u")


def test_a_sender_that_is_an_object_is_told_by_identity():
    signal = Signal()
    sender, equal = [1], [1]
    signal.connect(echo, sender=sender)
    assert signal.send(sender)
    assert not signal.send(equal)
    assert signal.has_listeners(sender)
    assert not signal.has_listeners(equal)


def test_a_sender_that_is_a_text_is_told_by_its_letters():
    signal = Signal()
    signal.connect(echo, sender="proj.add")
    assert signal.send("PROJ.ADD".lower())
    assert not signal.send("proj.mul")


def test_a_receiver_without_kwargs_is_refused():
    with pytest.raises(ValueError, match=r"does not accept \*\*kwargs"):
        Signal().connect(lambda sender: 1)


def test_an_error_in_a_receiver_is_logged_and_returned(caplog):
    signal = Signal()
    signal.connect(fail)
    signal.connect(echo)
    (_, error), (_, answer) = signal.send_robust(None)
    assert repr(error) == "ValueError('boom')"
    assert answer["sender"] is None
    assert caplog.record_tuples == [("celery.utils.dispatch.signal", logging.ERROR, f"Signal handler {fail!r} raised: {error!r}")]


@pytest.mark.parametrize("name", ["setup_logging", "import_modules"])
def test_an_error_while_starting_is_raised(name):
    signal = getattr(signals, name)
    signal.connect(fail)
    try:
        with pytest.raises(ValueError, match="boom"):
            signal.send(None)
    finally:
        signal.disconnect(fail)


def test_a_receiver_may_be_called_until_it_works():
    signal = Signal()
    signal.retry_delays = (0,)
    left = [1, 2, 3]

    def stumble(**kwargs):
        if left.pop():
            assert not left, "not yet"
        return "done"

    signal.connect(stumble, retry=True)
    assert [answer for _, answer in signal.send(None)] == ["done"]


def test_a_receiver_may_disconnect_itself_while_it_is_called():
    signal = Signal()

    def once(**kwargs):
        signal.disconnect(once)

    signal.connect(once)
    signal.connect(echo)
    assert len(signal.send(None)) == 2
    assert len(signal.send(None)) == 1
