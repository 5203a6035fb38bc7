# ruff: noqa: ARG002 - a refusal needs no argument
"""What a result backend is that keeps no workflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NoReturn

from umbel.backend import Arrival, Flows, Gone, JoinProgress, Over

__all__ = ["WithoutFlows"]


class WithoutFlows(Flows):
    """Refuses all that is about workflows."""

    keeps_flows = False
    lacks: ClassVar[str] = "This result backend keeps no workflows."

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{self.lacks} Chords, what follows a group, and groups that are saved need a backend that does: set result_backend, for "
            "example, to redis://127.0.0.1:6379/1, postgresql://127.0.0.1/umbel or sqlite:////absolute/path/umbel.sqlite3."
        )

    def begin_flow(self, flow: str, nodes: Mapping[int, bytes], joins: Mapping[int, tuple[int, bytes]], *, expires: float | None) -> None:
        self._refuse()

    def nodes(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        self._refuse()

    def node_numbers(self, flow: str) -> list[int]:
        self._refuse()

    def join_data(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        self._refuse()

    def arrive(self, arrivals: Sequence[Arrival], *, expires: float | None) -> list[Over | Gone | None]:
        self._refuse()

    def arrived(self, flow: str, join: int, *, start: int = 0, limit: int = 500) -> list[bytes]:
        self._refuse()

    def sent(self, overs: Sequence[Over]) -> None:
        self._refuse()

    def overs(self, *, older: float, limit: int = 100) -> list[Over]:
        self._refuse()

    def grow(self, flow: str, join: int, by: int, *, key: str) -> int | None:
        self._refuse()

    def progress(self, flow: str) -> dict[int, JoinProgress]:
        self._refuse()

    def forget_flows(self, flows: Sequence[str]) -> None:
        self._refuse()

    def bind(self, copies: Sequence[tuple[str, str]], *, expires: float | None) -> list[bool]:
        self._refuse()

    def save_group(self, id: str, document: bytes, *, expires: float | None) -> None:
        self._refuse()

    def saved_group(self, id: str) -> bytes | None:
        self._refuse()

    def delete_group(self, id: str) -> None:
        self._refuse()
