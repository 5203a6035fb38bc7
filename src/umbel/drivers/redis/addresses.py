"""From a URL and options to what makes a connection: addresses, database, user, TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from umbel.config_values import masked, without_secrets
from umbel.drivers.lookup import is_name
from umbel.exceptions import ImproperlyConfigured

__all__ = ["Maker", "Many", "maker", "several"]

TLS_OPTIONS = (
    "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname",
    "ssl_ciphers", "ssl_min_version",
)  # fmt: skip
PASSED_OPTIONS = ("socket_keepalive", "health_check_interval", "username", "password", *TLS_OPTIONS)
# As Celery writes it, as redis-py does, and as Python's numbers.
VERIFICATIONS = {
    "cert_none": "none",
    "cert_optional": "optional",
    "cert_required": "required",
    "0": "none",
    "1": "optional",
    "2": "required",
}
Address = tuple[str, int]


class Maker(NamedTuple):
    """How connections to one server are made."""

    make: Callable[[], Any]
    named: bool  # must its host be looked up by servers of names?
    address: tuple[tuple[str, str], ...]  # host, port, database: what it has in common with another client of the same data


def maker(url: str, options: Mapping[str, Any], *, connect_in: float, reply_in: float) -> Maker:
    """Read *url* and *options*.

    Raises:
        ImproperlyConfigured: they cannot be used.
    """
    passed = {name: options[name] for name in PASSED_OPTIONS if name in options} | tls(options)
    try:
        pool = redis.ConnectionPool.from_url(
            verified(url), socket_connect_timeout=connect_in, socket_timeout=reply_in, retry=Retry(NoBackoff(), 0), **passed
        )
        kwargs = pool.connection_kwargs
        kwargs["protocol"] = 2  # also where the URL asks for another: replies are read as this one has them
        if "ssl_cert_reqs" in kwargs:
            kwargs["ssl_cert_reqs"] = verification(kwargs["ssl_cert_reqs"])
        look_for_files(kwargs)
        if provider := options.get("credential_provider") or kwargs.get("credential_provider"):
            kwargs |= {"username": None, "password": None, "credential_provider": provider_of(provider)}
        named = is_name(str(kwargs.get("host", "localhost")))
    except (ValueError, TypeError) as exc:
        # Without its cause: a parser may have cut the URL in the middle of the password, and says the part.
        raise ImproperlyConfigured(
            f"{masked(url)!r} is not a Redis URL: {without_secrets(str(exc), url)}. Write it as redis://:password@host:6379/0, "
            "with %2F for a / in the password, %40 for an @, %23 for a #."
        ) from None
    kind = redis.SSLConnection if passed.get("ssl_cert_reqs") and pool.connection_class is redis.Connection else pool.connection_class
    address = tuple(sorted((name, str(value)) for name, value in kwargs.items() if name in {"host", "port", "db", "path"}))
    return Maker(lambda: kind(**kwargs), named, address)


def tls(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the settings `broker_use_ssl` and `redis_backend_use_ssl` say: True, or a dict of options."""
    asked = options.get("ssl")
    if not asked:
        return {}
    given = dict(asked) if isinstance(asked, Mapping) else {}
    if unknown := sorted(set(given) - set(TLS_OPTIONS)):
        raise ImproperlyConfigured(
            f"broker_use_ssl or redis_backend_use_ssl has {', '.join(unknown)}. Redis takes {', '.join(TLS_OPTIONS)}."
        )
    return {**given, "ssl_cert_reqs": verification(given.get("ssl_cert_reqs", "required"))}


def look_for_files(kwargs: Mapping[str, Any]) -> None:
    """Raise if a file that TLS needs is not there: a connection would say so without its name."""
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if (path := kwargs.get(name)) and not Path(path).is_file():
            raise ImproperlyConfigured(f"{name} names {path}, and there is no such file. Give an absolute path of a file in PEM format.")


def provider_of(given: Any) -> Any:
    """Return who is asked for user and password at each new connection: an object, or the dotted path of its class, as kombu has it.

    Raises:
        ImproperlyConfigured: it is neither.
    """
    provider = given
    if isinstance(given, str):
        module, _, name = given.rpartition(".")
        try:
            provider = getattr(import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as exc:
            raise ImproperlyConfigured(f"credential_provider names {given!r}, which cannot be imported: {exc}.") from exc
    if not callable(getattr(provider, "get_credentials", None)):
        raise ImproperlyConfigured(
            f"credential_provider is {given!r}. Give a redis.CredentialProvider, or the dotted path of such a class."
        )
    return provider


def verified(url: str) -> str:
    """Return *url* with the option `ssl_cert_reqs` as redis-py writes it."""
    parts = urlsplit(url)
    if "ssl_cert_reqs" not in parts.query:
        return url
    pairs = [
        (name, verification(value) if name == "ssl_cert_reqs" else value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return parts._replace(query=urlencode(pairs)).geturl()


def verification(value: Any) -> str:
    """Return how a server's certificate is verified: none, optional, required.

    Raises:
        ImproperlyConfigured: it is none of these.
    """
    text = "none" if value is None else str(int(value)) if isinstance(value, ssl.VerifyMode) else str(value).lower()
    known = VERIFICATIONS.get(text, text)
    if known not in VERIFICATIONS.values():
        raise ImproperlyConfigured(
            f"ssl_cert_reqs is {value!r}. Give required, optional or none (or CERT_REQUIRED, CERT_OPTIONAL, CERT_NONE)."
        )
    return known


class Many(NamedTuple):
    """A URL that names several servers."""

    hosts: Sequence[Address]
    one: str  # the URL of one server, with the first host

    def at(self, address: Address) -> str:
        """Return the URL of the server at *address*."""
        parts = urlsplit(self.one)
        login, at, _ = parts.netloc.rpartition("@")
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return parts._replace(netloc=f"{login}{at}{host}:{address[1]}").geturl()


def several(url: str, *, scheme: str, port: int) -> Many:
    """Read a URL that names several servers: `s://user:password@h1:1,h2:2/0?o=v`, or `s://h1:1;s://h2:2/0`, as Celery has it.

    Login, database and options may stand at any of them.

    Raises:
        ImproperlyConfigured: it cannot be read, or says two things.
    """
    try:
        parts = [urlsplit(each if "://" in each else f"//{each}") for each in url.split(";") if each.strip("/ ")]
        texts = [text for each in parts for text in each.netloc.rpartition("@")[2].split(",") if text]
        hosts = [(at.hostname or "localhost", at.port or port) for at in (urlsplit(f"//{text}") for text in texts)]
        said = {
            "login": {each.netloc.rpartition("@")[0] for each in parts},
            "database": {each.path.strip("/") for each in parts},
            "options": {each.query for each in parts},
        }
    except ValueError as exc:
        raise ImproperlyConfigured(f"{masked(url)!r} cannot be read: {without_secrets(str(exc), url)}.") from None
    for what, values in said.items():
        values.discard("")
        if len(values) > 1:
            raise ImproperlyConfigured(f"{masked(url)!r} names {len(values)} different values of its {what}. Write the {what} once.")
    login, database, query = ("".join(values) for values in said.values())
    many = Many(hosts or [("localhost", port)], f"{scheme}://{login and f'{login}@'}x/{database}{query and f'?{query}'}")
    return many._replace(one=many.at(many.hosts[0]))
