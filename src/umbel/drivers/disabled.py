# ruff: noqa: ARG002 - not every driver needs every argument
"""What stands where no result backend is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from umbel.backend import Record, ResultBackend
from umbel.drivers.without_flows import WithoutFlows
from umbel.watch import Watch

__all__ = ["DisabledBackend"]


class DisabledBackend(WithoutFlows, ResultBackend):
    """Takes every write without keeping it; refuses every read, and all workflows."""

    lacks = "No result backend is configured."

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def store(self, records: Sequence[Record]) -> list[bool]:
        return [True] * len(records)

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        self._refuse_reading()

    def watch(self) -> Watch:
        self._refuse_reading()

    def forget(self, ids: Sequence[str]) -> None:
        pass

    def prune(self) -> int:
        return 0

    @staticmethod
    def _refuse_reading() -> NoReturn:
        raise NotImplementedError(
            "No result backend is configured. Set result_backend, for example to redis://127.0.0.1:6379/1 or "
            "sqlite:////absolute/path/umbel.sqlite3, to read states and results."
        )
