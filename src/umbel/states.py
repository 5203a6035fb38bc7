"""The states of a task, the sets they form, and which of two states counts for more."""

from __future__ import annotations

__all__ = [
    "ALL_STATES",
    "EXCEPTION_STATES",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PRECEDENCE",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNKNOWN",
    "UNREADY_STATES",
    "precedence",
    "state",
]

PENDING = "PENDING"  # waiting, or the id is unknown: nothing is stored
RECEIVED = "RECEIVED"  # in events only
STARTED = "STARTED"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"  # in events only
RETRY = "RETRY"
UNKNOWN = "UNKNOWN"  # nothing is stored; said in place of PENDING with `result_honest_states`
IGNORED = "IGNORED"  # what an eager call of an ignored task returns

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

# From the state that counts most to the one that counts least; None stands for a user's own states.
PRECEDENCE: tuple[str | None, ...] = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)
_PLACE = {name: place for place, name in enumerate(PRECEDENCE)}


def precedence(name: str | None) -> int:
    """The place of a state in `PRECEDENCE`: a lower number counts for more."""
    return _PLACE.get(name, _PLACE[None])


class state(str):  # noqa: N801 - Celery's name
    """The name of a state; `<` and `>` compare by precedence, so `state("PENDING") < state("SUCCESS")`."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
