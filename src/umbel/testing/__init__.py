"""What tests of umbel, of its drivers and of projects that use it share."""

from umbel.testing.clock import FakeClock
from umbel.testing.faulty import Act, Fault, FaultyBroker, faulty_broker

__all__ = ["Act", "FakeClock", "Fault", "FaultyBroker", "faulty_broker"]
