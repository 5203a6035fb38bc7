"""What a setting may hold: the check of its type, reading it from text, and hiding what is secret in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta, tzinfo
from functools import cache
from typing import Any, Final
from urllib.parse import quote, unquote

from umbel.exceptions import ImproperlyConfigured
from umbel.settings_table import IMPLEMENTED, Setting

__all__ = ["HIDDEN", "censored", "checked", "from_text", "masked", "without_secrets"]

HIDDEN: Final = "********"

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "bytes": (bytes,),
    "dict": (Mapping,),
    "float": (int, float),
    "int": (int,),
    "list": (list, tuple, set, frozenset),
    "none": (type(None),),
    "object": (object,),
    "str": (str,),
    "timedelta": (timedelta,),
    "type": (type,),
    "tzinfo": (tzinfo,),
}
_ANY_BOOL: Final = frozenset({"bool", "object"})
_BOOLEANS: Final[Mapping[str, bool]] = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip

_SECRETS: Final = frozenset({"key", "pass", "passwd", "password", "secret", "signature", "token", "credential", "credentials"})
_NOT_SECRET: Final = frozenset({"routing_key", "task_default_routing_key"})
_NEXT_URL: Final = re.compile(r"([;,])(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
# The password ends at the last "@": one that holds "/" or "@" is hidden as a whole.
_URL_PASSWORD: Final = re.compile(r"(\w://[^:/?#@]*):.+@", re.DOTALL)
_URL_OPTION: Final = re.compile(r"([?&])([^=&]+)=([^&]*)")
_LOGIN: Final = re.compile(r":[^:@\s]+@")  # of what was meant to be a URL
_NAMED: Final = re.compile(r"\b(\w*(?:password|passwd|secret|token|accountkey)\w*\s*[=:]\s*)([^\s;&,'\"]+)", re.IGNORECASE)
_SHORTEST_SECRET: Final = 3  # characters: what is shorter would be found in every text


def checked(setting: Setting, value: Any) -> Any:
    """Return *value* as *setting* holds it; whole numbers become floats and 0 and 1 booleans where one is expected.

    Raises:
        ImproperlyConfigured: it is of another type, or a negative number of seconds, tasks, ...
    """
    kinds = _kinds(setting.type)
    if any(_fits(kind, value) for kind in kinds):
        _check_sense(setting, value)
        return float(value) if "float" in kinds and type(value) is int else value
    if "bool" in kinds and type(value) is int and value in (0, 1):
        return bool(value)
    raise _mistyped(setting, value)


def from_text(setting: Setting, text: str) -> Any:
    """Return what *text*, from the environment or a command line, means for *setting*.

    Raises:
        ImproperlyConfigured: it means nothing for that type.
    """
    for kind in _kinds(setting.type):
        reader = _READERS.get(kind)
        try:
            return _literal(kind, text) if reader is None else reader(text)
        except ValueError:
            continue
    raise _mistyped(setting, text)


def censored(name: str, value: Any) -> Any:
    """Return *value* with passwords, secrets, tokens, keys and signatures replaced, in URLs and nested values too."""
    if value and not isinstance(value, bool) and _is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        return _censored_text(value)
    if isinstance(value, Mapping):
        return {key: censored(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [censored("", item) for item in value]
    return value


def masked(text: str) -> str:
    """Return a URL, or what was meant to be one, as people may see it."""
    return str(censored("", text)).replace(HIDDEN, "**")


def without_secrets(text: str, url: str) -> str:
    """Return what a library said of a connection to *url*, without the passwords of that URL in any of their spellings."""
    found = [login[1] for login in re.finditer(r"\w://[^:/?#@]*:(.+)@", url, re.DOTALL)]
    found += [option[3] for option in _URL_OPTION.finditer(url) if _is_secret(option[2])]
    spellings = {spelling for secret in found for spelling in (secret, unquote(secret), quote(secret), quote(secret, safe=""))}
    for secret in found:  # a parser may cut a URL at these, and quote a part of a password
        spellings.update(part for part in re.split(r"[/?#@:]", secret) if len(part) >= _SHORTEST_SECRET)
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "**")
    return text


@cache
def _kinds(expression: str) -> tuple[str, ...]:
    # Text is tried as each type in turn: str takes anything, so it comes last.
    return tuple(sorted(expression.split("|"), key=lambda kind: kind == "str"))


def _fits(kind: str, value: Any) -> bool:
    if kind == "callable":
        return callable(value)
    if kind not in _TYPES:  # a word in quotes or a number
        return type(value) in (str, int) and repr(value) == kind
    # A bool is an int for Python; as a number of seconds it is a mistake.
    return isinstance(value, _TYPES[kind]) and (kind in _ANY_BOOL or not isinstance(value, bool))


def _literal(kind: str, text: str) -> Any:
    if text != kind.strip("'"):
        raise ValueError(text)
    return int(text) if kind.isdigit() else text


def _bool(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _none(text: str) -> None:
    if text.strip().lower() not in ("", "none", "null"):
        raise ValueError(text)


def _dict(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)  # noqa: TRY004 - the caller tries the next type
    return value


def _list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    if "://" in text:  # a URL may hold commas and is one word
        raise ValueError(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _unreadable(text: str) -> Any:
    raise ValueError(text)


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "bool": _bool,
    "bytes": lambda text: text.encode(),
    "callable": _unreadable,
    "dict": _dict,
    "float": float,
    "int": int,
    "list": _list,
    "none": _none,
    "object": _unreadable,
    "str": str,
    "timedelta": _unreadable,
    "type": _unreadable,
    "tzinfo": _unreadable,
}


def _mistyped(setting: Setting, value: Any) -> ImproperlyConfigured:
    shown = censored(setting.name, value)
    expected = " or ".join(setting.type.replace("none", "None").split("|"))
    return ImproperlyConfigured(f"{setting.name} is {shown!r}, a {type(value).__name__}. It must be: {expected}. {setting.sentence}")


def _check_sense(setting: Setting, value: Any) -> None:
    """Refuse an amount below nothing, which would be a limit that is always reached, where the default is none such."""
    amount = setting.unit and setting.status is IMPLEMENTED and type(value) in (int, float)
    if amount and not value >= 0 and not (type(setting.default) is int and setting.default < 0):
        raise ImproperlyConfigured(f"{setting.name} is {value!r}. It must be 0 or more {setting.unit}. {setting.sentence}")


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return lowered not in _NOT_SECRET and not _SECRETS.isdisjoint(re.split(r"[^a-z]+", lowered))


def _censored_text(text: str) -> str:
    hidden = "".join(map(_censored_url, _NEXT_URL.split(text))) if "://" in text else _LOGIN.sub(f":{HIDDEN}@", text)
    return _NAMED.sub(rf"\1{HIDDEN}", hidden)


def _censored_url(url: str) -> str:
    url = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", url)
    return _URL_OPTION.sub(lambda found: f"{found[1]}{found[2]}={HIDDEN if _is_secret(found[2]) else found[3]}", url)
