"""Where RabbitMQ is: a URL as kombu reads it, and what the options say about TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from umbel.exceptions import ImproperlyConfigured

__all__ = ["Address", "address_of"]

PORT, PORT_TLS = 5672, 5671
HEARTBEAT = 4.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A virtual host of a server, and how to get in."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: ssl.SSLContext | None
    heartbeat: float  # seconds; what is silent for longer is taken for dead

    @property
    def shown(self) -> str:
        """As people may read it."""
        return f"{self.host}:{self.port} (virtual host {self.vhost!r})"


def address_of(url: str, options: Mapping[str, Any]) -> Address:
    """Read *url*, and TLS and heartbeat from *options* or the query.

    Raises:
        ImproperlyConfigured: a part of it is wrong.
    """
    parts = urlsplit(url)
    asked = {**{name: values[-1] for name, values in parse_qs(parts.query).items()}, **options}
    path = unquote(parts.path[1:]) if not parts.path.startswith("//") else "/"
    secure = parts.scheme == "amqps"
    try:
        port = parts.port or (PORT_TLS if secure else PORT)
        given = asked.get("heartbeat")
        heartbeat = HEARTBEAT if given is None else float(given)
    except ValueError as exc:
        raise ImproperlyConfigured(f"The URL of RabbitMQ or its options have a wrong number: {exc}.") from exc
    if not 1 <= heartbeat <= 600:  # noqa: PLR2004 - named in the text
        raise ImproperlyConfigured(f"broker_heartbeat is {heartbeat:g} s. For RabbitMQ it must be between 1 and 600.")
    return Address(
        host=parts.hostname or "localhost", port=port, user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"), vhost=path or "/", tls=_context(asked.get("ssl"), asked) if secure else None,
        heartbeat=float(round(heartbeat)),
    )  # fmt: skip


def _context(given: Any, asked: Mapping[str, Any]) -> ssl.SSLContext:
    """Make what TLS needs; the names are those of Celery's `broker_use_ssl`."""
    if isinstance(given, ssl.SSLContext):
        return given
    names = {**asked, **(given if isinstance(given, Mapping) else {})}
    known = {name: names.get(name) or names.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile", "cert_reqs")}
    try:
        context = ssl.create_default_context(cafile=known["ca_certs"])
        if known["certfile"]:
            context.load_cert_chain(known["certfile"], known["keyfile"])
    except OSError as exc:
        raise ImproperlyConfigured(f"TLS for RabbitMQ: a file cannot be used ({exc}). Look at ca_certs, certfile and keyfile.") from exc
    if known["cert_reqs"] in {ssl.CERT_NONE, "CERT_NONE", "none"}:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
