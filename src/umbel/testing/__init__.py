"""What tests of umbel, of its drivers and of projects that use it share."""

from umbel.testing.clock import FakeClock

__all__ = ["FakeClock"]
