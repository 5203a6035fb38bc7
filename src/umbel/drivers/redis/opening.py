"""Which client a URL wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.drivers.redis.client import Client
from umbel.drivers.redis.cluster_client import ClusterClient
from umbel.drivers.redis.sentinel import SentinelClient

__all__ = ["open_client"]


def open_client(url: str, *, options: Mapping[str, Any], timeout: float) -> Client:
    """Make the client of *url*; it connects at its first use."""
    scheme = url.partition(":")[0].lower()
    kind = SentinelClient if scheme.endswith("sentinel") else ClusterClient if scheme.endswith("+cluster") else Client
    return kind(url, options=options, timeout=timeout)
