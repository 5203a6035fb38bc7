"""What the settings say of where the broker is."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from umbel.config_values import masked
from umbel.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.config import FrozenSettings, Settings

__all__ = ["broker_url", "is_rabbitmq"]

logger = logging.getLogger("celery")
BETWEEN = re.compile(r";(?=[a-z][a-z+]*://)")  # two URLs in one text
RABBITMQ = frozenset({"amqp", "amqps", "pyamqp"})


def is_rabbitmq(url: str) -> bool:
    """Answer whether *url* names a RabbitMQ."""
    return url.partition(":")[0].lower() in RABBITMQ


def broker_url(conf: Settings | FrozenSettings) -> str:
    """Return where messages are sent; several nodes of one broker with `;` between them.

    Raises:
        ImproperlyConfigured: nobody said where.
    """
    given = conf.broker_write_url or conf.broker_url
    if not given:
        raise ImproperlyConfigured(
            "broker_url is not set, so there is nowhere to send tasks. Set it (CELERY_BROKER_URL in Django's settings) to "
            "sqlite:////absolute/path/umbel.sqlite3 for a file that needs no server, or to redis://localhost:6379/0.",
        )
    return one_broker(tuple(given) if isinstance(given, list | tuple) else tuple(BETWEEN.split(str(given))))


@lru_cache(maxsize=16)
def one_broker(urls: tuple[str, ...]) -> str:
    """Return *urls* as one, where they are nodes of one broker; else the first of them. Kept, so that it is said once."""
    first = urls[0]
    # Sentinels are one broker, whichever of them is asked, and so are the nodes of a RabbitMQ; Celery takes a list of them, too.
    if len(urls) == 1 or "sentinel" in first.partition("://")[0] or all(map(is_rabbitmq, urls)):
        return ";".join(urls)
    logger.warning(
        "broker_url names %d brokers, and only the first is used: %s. Several are taken only if they are nodes of one RabbitMQ, or "
        "sentinels.", len(urls), masked(first),
    )  # fmt: skip
    return first
