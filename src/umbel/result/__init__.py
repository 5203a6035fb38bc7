"""Results: what is known of tasks and groups by their ids."""

from __future__ import annotations

from umbel.joining import allow_join_result, assert_will_not_block, denied_join_result
from umbel.result.base import ResultBase
from umbel.result.eager import EagerResult
from umbel.result.graph import DependencyGraph
from umbel.result.groups import GroupResult, result_from_tuple
from umbel.result.progress import Progress
from umbel.result.sets import ResultSet
from umbel.result.single import AsyncResult

__all__ = [
    "AsyncResult",
    "DependencyGraph",
    "EagerResult",
    "GroupResult",
    "Progress",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
]
