from uuid import uuid4

import pytest

from umbel.drivers.memory import MemoryBroker
from umbel.testing.conformance import BrokerConformance, BusConformance

amqp = pytest.importorskip("umbel.drivers.amqp")
pytestmark = pytest.mark.amqp


class TestAmqpBroker(BrokerConformance):
    """RabbitMQ pushes messages, and gives them back a moment after it was asked to: what comes and what is counted is waited for."""

    @pytest.fixture
    def make_broker(self, amqp_url):
        state = f"memory://{uuid4().hex}"
        return lambda: amqp.AmqpBroker(amqp_url, timeout=10.0, state=MemoryBroker(state), patience=0.15)

    def pass_time(self, seconds):
        """Delays are rounded up to whole seconds."""
        super().pass_time(seconds + 1.2 if seconds >= 0.1 else seconds)

    def total(self, broker, queue):
        found = []

        def stands_still():
            found.append(super(TestAmqpBroker, self).total(broker, queue))
            return found[-1:] == found[-2:-1]

        self.until(stands_still)
        return found[-1]


class TestAmqpBus(BusConformance):
    @pytest.fixture
    def make_bus(self, amqp_url):
        return lambda: amqp.AmqpBus(amqp_url, timeout=10.0)
