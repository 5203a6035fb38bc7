"""Where a message goes: queues, exchanges, and the routes of tasks to them. Nothing here speaks to a broker."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from importlib import import_module
from typing import Any, Final

from umbel.exceptions import ImproperlyConfigured, QueueNotFound
from umbel.ids import check_queue_name

__all__ = ["Destination", "Exchange", "Queue", "Router", "compile_routes"]

Route = Mapping[str, Any]
# Answers with a route for (name, args, kwargs, options, task), or None.
RouteFinder = Callable[[str, Any, Any, Any, Any], Any]


class Exchange:
    """An exchange of AMQP; other brokers deliver straight to queues and use only its name."""

    def __init__(
        self,
        name: str = "",
        type: str = "direct",
        channel: Any = None,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        delivery_mode: int | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        del channel
        self.name = name
        self.type = type
        self.durable = durable
        self.auto_delete = auto_delete
        self.delivery_mode = delivery_mode
        self.arguments = dict(arguments or {})
        self.options = options  # what else kombu's Exchange takes, for a driver that knows it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exchange) and (self.name, self.type) == (other.name, other.type)

    def __hash__(self) -> int:
        return hash((self.name, self.type))

    def __repr__(self) -> str:
        return f"Exchange({self.name!r}, type={self.type!r})"

    def __str__(self) -> str:
        return self.name


class Queue:
    """A queue. Two queues of one name are equal."""

    def __init__(
        self,
        name: str = "",
        exchange: Exchange | str | None = None,
        routing_key: str | None = None,
        channel: Any = None,
        bindings: Iterable[Any] | None = None,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        queue_arguments: Mapping[str, Any] | None = None,
        max_priority: int | None = None,
        **options: Any,
    ) -> None:
        del channel
        self.name = name
        self.exchange: Exchange | None = _as_exchange(exchange)
        self.routing_key = routing_key
        self.bindings = tuple(bindings or ())
        self.durable = durable
        self.auto_delete = auto_delete
        self.queue_arguments = dict(queue_arguments or {})
        self.max_priority = max_priority
        self.options = options  # what else kombu's Queue takes, for a driver that knows it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Queue) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Queue({self.name!r}, exchange={self.exchange!r}, routing_key={self.routing_key!r})"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where one message goes."""

    queue: str
    exchange: str = ""  # as it is written into the message; the anonymous exchange delivers to the queue named by the routing key
    routing_key: str = ""
    priority: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # what a route says besides, for example `expires`


# --- routes -----------------------------------------------------------------------------------------------------------


def compile_routes(routes: Any) -> list[RouteFinder]:
    """Makes of `task_routes` a list of functions, of which the first that finds a route decides.

    Args:
        routes: None, a mapping or (pattern, route) pairs, a function, its dotted path, an object with
            `route_for_task`, or a list of these.

    Raises:
        ImproperlyConfigured: an entry is none of these, or its path cannot be imported.
    """
    if routes is None:
        return []
    if not isinstance(routes, list | tuple) or (_is_pair(routes) and isinstance(routes[1], Mapping)):
        routes = [routes]
    if routes and all(_is_pair(entry) for entry in routes):
        return [_table(list(routes))]
    return [_finder(entry) for entry in routes]


def _is_pair(entry: Any) -> bool:
    """Whether it is (pattern, route) rather than two routers."""
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[0], str | re.Pattern):  # noqa: PLR2004
        return False
    return isinstance(entry[1], Mapping) or (isinstance(entry[1], str) and isinstance(entry, tuple))


def _finder(entry: Any) -> RouteFinder:
    if isinstance(entry, str):
        entry = _imported(entry)
    if isinstance(entry, Mapping):
        return _table(list(entry.items()))
    if _is_pair(entry):
        return _table([entry])
    if isinstance(entry, list | tuple) and all(_is_pair(pair) for pair in entry):
        return _table(list(entry))
    if hasattr(entry, "route_for_task"):
        return lambda name, args, kwargs, _options, _task: entry.route_for_task(name, args, kwargs)
    if callable(entry):
        return lambda name, args, kwargs, options, task: entry(name, args, kwargs, options, task=task)
    raise ImproperlyConfigured(
        f"{entry!r} in task_routes is no route. Use a mapping of task names to routes, (pattern, route) pairs, "
        "a function or its dotted path, or an object with route_for_task()."
    )


def _table(pairs: list[tuple[Any, Any]]) -> RouteFinder:
    exact = {pattern: route for pattern, route in reversed(pairs) if isinstance(pattern, str) and "*" not in pattern}
    globs = [(_pattern(pattern), route) for pattern, route in pairs if not isinstance(pattern, str) or "*" in pattern]

    def find(name: str, _args: Any, _kwargs: Any, _options: Any, _task: Any) -> Any:
        if name in exact:
            return exact[name]
        return next((route for pattern, route in globs if pattern.match(name)), None)

    return find


def _pattern(pattern: Any) -> re.Pattern[str]:
    return re.compile(translate(pattern)) if isinstance(pattern, str) else pattern


def _imported(path: str) -> Any:
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"The router {path!r} in task_routes cannot be imported: {error}. Check its dotted path.") from error
    return found() if isinstance(found, type) else found


# --- the router -------------------------------------------------------------------------------------------------------


class Router:
    """Knows the queues and the routes of an app.

    Args:
        queues: `task_queues`: Queue objects (kombu's too), names, or a mapping of names to options.
        routes: `task_routes`.
        default_queue: its name.
        default_exchange: None: as the default queue.
        default_exchange_type: of exchanges that are made here.
        default_routing_key: None: as the default queue.
        default_priority: for messages that ask for none.
        create_missing: whether a queue that is not in `queues` is made when it is first named.
        missing_queue_type: "quorum" marks such queues for RabbitMQ.
        missing_exchange_type: of their exchanges; None: direct.
        default_queue_type: "quorum" marks the default queue for RabbitMQ.
        queue_max_priority: `x-max-priority` of queues that do not have their own.
    """

    def __init__(
        self,
        queues: Any = None,
        routes: Any = None,
        *,
        default_queue: str = "celery",
        default_exchange: str | None = None,
        default_exchange_type: str = "direct",
        default_routing_key: str | None = None,
        default_priority: int | None = None,
        create_missing: bool = True,
        missing_queue_type: str = "classic",
        missing_exchange_type: str | None = None,
        default_queue_type: str = "classic",
        queue_max_priority: int | None = None,
    ) -> None:
        self.default_queue = default_queue
        self.default_exchange = Exchange(default_exchange or default_queue, default_exchange_type)
        self.default_routing_key = default_routing_key or default_queue
        self.default_priority = default_priority
        self.create_missing = create_missing
        self._missing_queue_type = missing_queue_type
        self._missing_exchange_type = missing_exchange_type
        self._max_priority = queue_max_priority
        self._finders = compile_routes(routes)
        self.queues: dict[str, Queue] = {}
        for queue in _queues_of(queues):
            self.add(queue)
        if not self.queues:
            arguments = _queue_arguments(default_queue_type)
            self.add(Queue(default_queue, self.default_exchange, self.default_routing_key, queue_arguments=arguments))

    def add(self, queue: Any) -> Queue:
        """Makes a queue known, fills in what it leaves open, and returns it; one known by that name is replaced. ValueError: a bad name."""
        made = _as_queue(queue)
        check_queue_name(made.name)
        made.exchange = made.exchange or self.default_exchange
        made.routing_key = made.routing_key or self.default_routing_key
        limit = self._max_priority if made.max_priority is None else made.max_priority
        if limit is not None:
            made.queue_arguments.setdefault("x-max-priority", limit)
        self.queues[made.name] = made
        return made

    def queue(self, name: str) -> Queue:
        """The queue of this name, made now if it is missing and may be made.

        Raises:
            QueueNotFound: it is not in `task_queues`, and `task_create_missing_queues` is off.
        """
        known = self.queues.get(name)
        if known is not None:
            return known
        if not self.create_missing:
            raise QueueNotFound(
                f"Queue {name!r} missing from task_queues. Add it there, or set task_create_missing_queues. "
                f"Known: {', '.join(sorted(self.queues))}."
            )
        exchange = Exchange(name, self._missing_exchange_type or "direct")
        return self.add(Queue(name, exchange, name, queue_arguments=_queue_arguments(self._missing_queue_type)))

    def find_route(self, name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None) -> Route:
        """What `task_routes` says about a call, as options; empty if it says nothing."""
        for finder in self._finders:
            route = finder(name, args, kwargs, options, task)
            if route is not None:
                return {"queue": route} if isinstance(route, str) or not isinstance(route, Mapping) else route
        return _NO_ROUTE

    def route(
        self, name: str, args: Any = (), kwargs: Any = None, options: Mapping[str, Any] | None = None, task: Any = None
    ) -> Destination:
        """Where a call goes: its options come before the route, the route before the default queue.

        Args:
            name: of the task.
            args: of the call.
            kwargs: of the call.
            options: of the call, over those of the task; None values count as not given.
            task: the task, if it is known here.

        Raises:
            QueueNotFound: it goes to a queue that may not be made.
        """
        route = self.find_route(name, args, kwargs or {}, options or {}, task) if self._finders else _NO_ROUTE
        if not route and not options:
            merged: Mapping[str, Any] = _NO_ROUTE
        else:
            merged = {**route, **{key: value for key, value in (options or {}).items() if value is not None}}
        priority = merged.get("priority")
        queue = self._queue_for(merged)
        exchange, routing_key = _address(queue, merged)
        return Destination(
            queue=queue.name,
            exchange=exchange,
            routing_key=routing_key,
            priority=self.default_priority if priority is None else priority,
            options={key: value for key, value in route.items() if key not in _ADDRESS},
        )

    def _queue_for(self, merged: Mapping[str, Any]) -> Queue:
        queue = merged.get("queue")
        if not queue:
            return self._queue_bound_to(merged) or self.queue(self.default_queue)
        if isinstance(queue, str):
            return self.queue(queue)
        name = str(queue.name)
        return self.queues[name] if name in self.queues else self.add(queue)

    def _queue_bound_to(self, merged: Mapping[str, Any]) -> Queue | None:
        """The queue that an exchange and a routing key lead to, among the known ones."""
        exchange, key = _name(merged.get("exchange")), merged.get("routing_key")
        if exchange is None and key is None:
            return None
        if not exchange and key in self.queues:
            return self.queues[key]
        return next((q for q in self.queues.values() if exchange in (None, _name(q.exchange)) and _leads_to(q, key)), None)


def _leads_to(queue: Queue, key: str | None) -> bool:
    if key in (None, queue.routing_key) or queue.exchange is None or queue.exchange.type != "topic":
        return key in (None, queue.routing_key)
    words = ({"*": r"[^.]+", "#": ".*"}.get(word) or re.escape(word) for word in (queue.routing_key or "").split("."))  # as kombu on Redis
    return re.fullmatch(r"\.".join(words), key or "") is not None


_NO_ROUTE: Final[Route] = {}
_ADDRESS = frozenset({"queue", "exchange", "routing_key", "exchange_type", "priority"})


def _address(queue: Queue, merged: Mapping[str, Any]) -> tuple[str, str]:
    exchange, key = _name(merged.get("exchange")), merged.get("routing_key")
    if merged.get("queue") is None and exchange is not None:
        return exchange, key or queue.routing_key or queue.name
    kind = "direct" if queue.exchange is None else queue.exchange.type
    if kind == "direct":
        # The anonymous exchange leads to the queue itself, whatever its bindings are.
        return "", queue.name
    return _name(queue.exchange) or "", key or queue.routing_key or queue.name


def _name(exchange: Any) -> str | None:
    return exchange if exchange is None or isinstance(exchange, str) else str(exchange.name)


def _queue_arguments(kind: str) -> dict[str, Any]:
    return {"x-queue-type": "quorum"} if kind == "quorum" else {}


def _queues_of(queues: Any) -> list[Any]:
    if not queues:
        return []
    if isinstance(queues, Mapping):
        return [_queue_from_options(name, options) for name, options in queues.items()]
    if isinstance(queues, str):
        raise ImproperlyConfigured(f"task_queues is {queues!r}, a text. Use a list of Queue objects or of names.")
    return list(queues)


def _queue_from_options(name: str, options: Any) -> Any:
    if not isinstance(options, Mapping):
        return options
    known = dict(options)
    kind = known.pop("exchange_type", None) or "direct"
    exchange = known.pop("exchange", None)
    key = known.pop("binding_key", None)
    return Queue(
        name,
        Exchange(exchange, kind) if exchange and isinstance(exchange, str) else exchange,
        known.pop("routing_key", None) or key,
        **known,
    )


_SHARED_FIELDS = ("durable", "auto_delete", "queue_arguments", "max_priority")


def _as_queue(queue: Any) -> Queue:
    """A new queue from a name, from one of ours, or from any object that looks like one."""
    if isinstance(queue, str):
        return Queue(queue, queue, queue)
    if not hasattr(queue, "name"):
        raise ImproperlyConfigured(f"{queue!r} in task_queues is no queue. Use Queue(name) or the name.")
    options = {name: getattr(queue, name) for name in _SHARED_FIELDS if hasattr(queue, name)}
    if isinstance(queue, Queue):
        options |= {"bindings": queue.bindings, **queue.options}
    return Queue(queue.name, getattr(queue, "exchange", None), getattr(queue, "routing_key", None), **options)


def _as_exchange(exchange: Any) -> Exchange | None:
    if exchange is None or isinstance(exchange, Exchange):
        return exchange
    if isinstance(exchange, str):
        return Exchange(exchange) if exchange else None
    # kombu gives a queue without an exchange a nameless one.
    return Exchange(exchange.name, getattr(exchange, "type", None) or "direct") if exchange.name else None
