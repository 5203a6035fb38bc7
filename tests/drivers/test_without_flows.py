"""Backends that keep no workflows say so, and what to set."""

import pytest

from umbel.backend import Flows
from umbel.drivers import open_backend
from umbel.drivers.disabled import DisabledBackend

ARGUMENTS = {
    "begin_flow": (("f", {}, {}), {"expires": 1.0}), "nodes": (([],), {}), "join_data": (([],), {}), "arrive": (([],), {"expires": 1.0}),
    "arrived": (("f", 0), {}), "sent": (([],), {}), "overs": ((), {"older": 1.0}), "grow": (("f", 0, 1), {"key": "k"}),
    "node_numbers": (("f",), {}),
    "progress": (("f",), {}), "forget_flows": (([],), {}), "bind": (([],), {"expires": 1.0}), "save_group": (("g", b""), {"expires": 1.0}),
    "saved_group": (("g",), {}), "delete_group": (("g",), {}),
}  # fmt: skip


def test_every_call_about_workflows_is_named_here():
    assert set(ARGUMENTS) == Flows.__abstractmethods__


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("kind", ["disabled", "rpc"])
def test_a_backend_without_workflows_refuses_each_call_and_says_what_to_set(kind, name):
    backend = DisabledBackend() if kind == "disabled" else open_backend("amqp://guest@127.0.0.1:1//")
    args, how = ARGUMENTS[name]
    assert not backend.keeps_flows
    with pytest.raises(NotImplementedError, match=r"set result_backend, for example, to redis://"):
        getattr(backend, name)(*args, **how)
    backend.close()
