"""Messages for tests of what reads messages."""
# ruff: noqa: N802 - Celery's names

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import MagicMock, Mock

from umbel.ids import uuid
from umbel.wire import serializers

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def _message(id: str, headers: dict[str, Any], body: Any) -> Mock:
    message = Mock(name=f"TaskMessage-{id}")
    message.headers, message.payload, message.decode.return_value = headers, body, body
    message.content_type, message.content_encoding, message.body = serializers.encode("json", body)
    message.properties = {"correlation_id": id}
    return message


def TaskMessage(
    name: str, id: str | None = None, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, callbacks: Any = None,
    errbacks: Any = None, chain: Any = None, shadow: str | None = None, utc: bool | None = None, **options: Any,
) -> Mock:  # fmt: skip
    """Make a message of protocol 2."""
    del utc
    id = id or uuid()  # noqa: A001 - Celery's name
    headers = {"id": id, "task": name, "shadow": shadow, **options}
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    return _message(id, headers, (list(args), dict(kwargs or {}), embed))


def TaskMessage1(
    name: str, id: str | None = None, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, callbacks: Any = None,
    errbacks: Any = None, chain: Any = None, **options: Any,
) -> Mock:  # fmt: skip
    """Make a message of protocol 1."""
    id = id or uuid()  # noqa: A001
    body = {
        "task": name, "id": id, "args": list(args), "kwargs": dict(kwargs or {}), "callbacks": callbacks, "errbacks": errbacks,
        "chain": chain, **options,
    }  # fmt: skip
    return _message(id, {}, body)


def task_message_from_sig(app: Any, sig: Any, utc: bool = True, TaskMessage: Callable[..., Any] = TaskMessage) -> Any:  # noqa: N803
    """Make the message that calling the signature *sig* would send."""
    sig.freeze()
    fields = sig.options
    names = ("callbacks", "link"), ("errbacks", "link_error")
    links = {name: [dict(each) for each in fields.get(option) or ()] or None for name, option in names}
    more = {option: fields[option] for option in ("eta", "expires") if fields.get(option) is not None}
    if fields.get("countdown"):
        from datetime import timedelta

        more["eta"] = (app.now() + timedelta(seconds=fields["countdown"])).isoformat()
    return TaskMessage(sig.task, id=sig.id, args=sig.args, kwargs=sig.kwargs, utc=utc, **links, **more)


def ContextMock(*args: Any, **kwargs: Any) -> MagicMock:
    """Make a mock that is a context manager of itself."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock
