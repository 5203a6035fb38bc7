"""A client of the master that sentinels name. It asks them for each connection, and again each second, so it follows a failover.

A master that was frozen or cut off goes on taking writes when it comes back, until the sentinels tell it that it is a replica: some
ten seconds, in which all that it takes is lost. So no connection is used for longer than a second without asking whether it still
leads to the master.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from umbel.config_values import masked
from umbel.drivers.lookup import in_time
from umbel.drivers.redis.addresses import several
from umbel.drivers.redis.client import FAULTS, Client
from umbel.exceptions import ImproperlyConfigured

__all__ = ["SentinelClient"]

PORT = 26379
ASK_EVERY = 1.0  # seconds; an answer takes some hundred microseconds
SHARE = 0.2  # of the time for a call that one sentinel has to answer: another may be asked, and the master is still to be connected to


class SentinelClient(Client):
    """As `Client`, but for where it connects to.

    Login, database and TLS of the URL are those of the master; what sentinels want is in `sentinel_kwargs`, as in Celery.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any], timeout: float) -> None:
        servers = several(url, scheme="rediss" if url.startswith("rediss") else "redis", port=PORT)
        parts = urlsplit(servers.one)
        given = dict(parse_qsl(parts.query))
        self._name = str(given.pop("master_name", "") or options.get("master_name") or "")
        super().__init__(parts._replace(query=urlencode(given)).geturl(), options=options, timeout=timeout)
        self._given, self.url = (url, options), masked(url)
        if not self._name:
            raise ImproperlyConfigured(
                f"Which master do the sentinels of {self.url} watch over? Set broker_transport_options (for results "
                "result_backend_transport_options) to {'master_name': 'mymaster'}, or write ?master_name=mymaster at the end of the URL."
            )
        self._named = True  # asking sentinels has no deadline of its own
        self.address = (*self.address, ("master_name", self._name))
        bounds = {"socket_timeout": timeout * SHARE, "socket_connect_timeout": timeout * SHARE, "retry": Retry(NoBackoff(), 0)}
        make: Any = Sentinel  # redis-py has no types for it
        self._sentinel = make(
            list(servers.hosts),
            min_other_sentinels=int(options.get("min_other_sentinels", 0)),
            sentinel_kwargs=bounds | dict(options.get("sentinel_kwargs") or {}),
        )
        self._master: Any = None
        self._asked = 0.0

    def _ask(self) -> None:
        self._asked = time.monotonic()
        found = self._sentinel.discover_master(self._name)
        if found != self._master:
            super().close()  # those that are left lead to a server that is not the master any more
            self._master = found

    def _begin(self, connection: Any) -> None:
        self._ask()
        connection.host, connection.port = self._master
        super()._begin(connection)

    def _take(self) -> Any:
        if self._idle and time.monotonic() - self._asked > ASK_EVERY:
            with suppress(*FAULTS):  # who is away cannot say that the master is another one
                in_time(self._ask, self.timeout)  # their names may have to be looked up
        connection = super()._take()
        while (connection.host, connection.port) != self._master:  # it was lent when the master changed, and came back after that
            connection.disconnect()
            connection = super()._take()
        return connection

    def close(self) -> None:
        super().close()
        for each in self._sentinel.sentinels:
            each.close()
