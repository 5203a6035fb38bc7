"""A view whose broker does not answer."""

import time

from tests.django.conftest import Example
from tests.servers import free_port


def test_a_view_fails_in_time_when_redis_is_not_there(tmp_path):
    example = Example(tmp_path, BROKER_URL=f"redis://127.0.0.1:{free_port()}")
    code = """
import time
from umbel.exceptions import BrokerUnavailable
from myapp_infra.tasks import add
started = time.monotonic()
try:
    add.delay(1, 2)
except BrokerUnavailable as error:
    print("raised", time.monotonic() - started)
"""
    before = time.monotonic()
    told = example.shell(code).splitlines()[-1].split()
    assert told[0] == "raised", told
    assert float(told[1]) < 3
    assert time.monotonic() - before < 30
