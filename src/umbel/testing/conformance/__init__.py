"""The suites that define a driver: inherit them, give the fixture `broker` or `backend`, and pass.

    class TestMyBroker(BrokerConformance):
        @pytest.fixture
        def make_broker(self): ...

They need pytest.
"""

from umbel.testing.conformance.backend import BackendConformance
from umbel.testing.conformance.broker import BrokerConformance
from umbel.testing.conformance.bus import BusConformance
from umbel.testing.conformance.flows import FlowConformance
from umbel.testing.conformance.leases import LeaseConformance
from umbel.testing.conformance.schedules import ScheduleStoreConformance

__all__ = ["BackendConformance", "BrokerConformance", "BusConformance", "FlowConformance", "LeaseConformance", "ScheduleStoreConformance"]
