"""A signature: a call that is not sent yet, as a value that can travel.

It is a dict with Celery's keys, so JSON and pickle know it. What changes one in place (`set`, `link`, …) does so because Celery's users
rely on it; a clone shares no state with what it was made of, and sending never changes what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from umbel.canvas import stamping, unite
from umbel.canvas.calling import Sendable
from umbel.canvas.fresh import fresh_id
from umbel.canvas.mistakes import keywords, no_signature, positional
from umbel.canvas.options import LINKS, copied_options, maybe_list
from umbel.current import get_current_app
from umbel.ids import reply_oid
from umbel.result import AsyncResult
from umbel.wire.saferepr import saferepr

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.task import Task

__all__ = ["Signature", "maybe_signature", "signature", "subtask"]

R = TypeVar("R")
S = TypeVar("S", bound="Signature[Any]")

KEYS = ("task", "args", "kwargs", "options", "subtask_type", "immutable")


def _key(name: str, doc: str) -> Any:
    def read(self: Signature[Any]) -> Any:
        return self[name]

    def write(self: Signature[Any], value: Any) -> None:
        self[name] = value

    return property(read, write, doc=doc)


class Signature(dict[str, Any], Sendable[R], Generic[R]):
    """One call of a task: its name, arguments and options.

    Args:
        task: the task, its name, or a dict to read.
        args: positional arguments.
        kwargs: keyword arguments.
        options: those of `Task.apply_async`.
        type: the task.
        subtask_type: what kind of canvas it is; None: a single task.
        immutable: takes no further arguments.
        app: whose task it is; None: the current one's.
        ex: further options.
    """

    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}

    _app: Umbel | None = None
    _type: Task[..., Any] | None = None

    task: str = _key("task", "The name of the task.")
    args: tuple[Any, ...] = _key("args", "Positional arguments.")
    kwargs: dict[str, Any] = _key("kwargs", "Keyword arguments.")
    options: dict[str, Any] = _key("options", "The options of the call.")
    subtask_type: str | None = _key("subtask_type", "The kind of canvas; None: a single task.")
    immutable: bool = _key("immutable", "Does it take no further arguments?")

    def __init__(
        self,
        task: Task[..., R] | str | Mapping[str, Any] | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Task[..., Any] | None = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Umbel | None = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, Mapping):
            super().__init__(task)
            return
        name: Any = task
        if task is not None and not isinstance(task, str):
            if not isinstance(getattr(task, "name", None), str):
                raise TypeError(f"{saferepr(task, 60)} is neither a task nor the name of one.")
            name, self._type = task.name, task
        if type is not None:
            self._type = type
            name = name or type.name
        super().__init__(
            task=name,
            args=positional(name, args) if args else (),
            kwargs=keywords(name, kwargs) if kwargs else {},
            options=dict(options or {}, **ex),
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # --- kinds

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type[S]], type[S]]:
        """Say which class a dict with this `subtask_type` becomes; a decorator."""

        def register(subclass: type[S]) -> type[S]:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Umbel | None = None) -> Signature[Any]:
        """Read a dict as a signature of its kind; it shares nothing with the dict that changing it would change."""
        kind = cls.TYPES.get(d.get("subtask_type") or "")
        if kind is not None and kind is not cls:
            return kind.from_dict(d, app=app)
        fresh: Signature[Any] = Signature(_normal(d), app=app)
        return fresh

    # --- what it says

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task

    @property
    def id(self) -> str | None:
        """The id that it was given."""
        return self.options.get("task_id")

    @property
    def parent_id(self) -> str | None:
        """The id of what came before it."""
        return self.options.get("parent_id")

    @property
    def root_id(self) -> str | None:
        """The id of what its workflow began with."""
        return self.options.get("root_id")

    @property
    def app(self) -> Umbel:
        """Whose task it is."""
        return self._app or (self._type.app if self._type is not None else get_current_app())

    @property
    def type(self) -> Task[..., R]:
        """The task.

        Raises:
            NotRegistered: this process does not know it.
        """
        return self._type or self.app.tasks[self.task]

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Run the task here, as a plain function."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    # --- merging and copying

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Return arguments and options as they are with further ones; *force* also gives arguments to what is immutable."""
        own = self.options
        further = {key: value for key, value in (options or {}).items() if value is not None and key not in LINKS}
        if own.get("group_id"):
            further.pop("group_id", None)
        if "stamped_headers" in own:
            stamped = set(own["stamped_headers"] or ())
            further = {key: value for key, value in further.items() if key not in stamped and key != "stamped_headers"}
        merged = {**own, **further}
        for name in LINKS:
            if options and options.get(name):
                merged[name] = [*maybe_list(own.get(name)), *maybe_list(options[name])]
        if self.immutable and not force:
            return tuple(self.args), dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *, app: Umbel | None = None, **opts: Any
    ) -> Self:
        """Return a copy with further arguments and options."""
        args, kwargs, options = self._merge(args, kwargs, opts)
        return self._copy(args, kwargs, options, self.immutable, app)

    partial = clone

    def _copy(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], immutable: bool, app: Umbel | None = None
    ) -> Self:
        copied: Self = dict.__new__(self.__class__)
        dict.__init__(
            copied, task=self.task, args=tuple(args), kwargs=self._copied_kwargs(kwargs), options=copied_options(options),
            subtask_type=self.subtask_type, immutable=immutable,
        )  # fmt: skip
        copied._app, copied._type = app or self._app, self._type
        return copied

    def _copied_kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Copy keyword arguments; a canvas also copies the signatures in them."""
        return dict(kwargs)

    def replace(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> Self:
        """Return a copy with other arguments or options instead of its own."""
        return self._copy(
            self.args if args is None else args,
            self.kwargs if kwargs is None else kwargs,
            self.options if options is None else options,
            self.immutable,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = copied = self._copy(deepcopy(self.args, memo), self.kwargs, self.options, self.immutable)
        return copied

    __copy__ = clone

    # --- changing in place

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Change options; return itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it takes further arguments."""
        self.immutable = immutable

    def link(self, callback: S) -> S:
        """Send *callback* with the value when it has succeeded; return *callback*."""
        return self._follow("link", callback)

    def link_error(self, errback: S) -> S:
        """Send *errback* when it has failed; return *errback*."""
        return self._follow("link_error", errback)

    def _follow(self, key: str, value: S) -> S:
        if as_signature(value) is self:
            raise ValueError(f"{saferepr(self, 60)} cannot follow itself. Give a copy: sig.clone().")
        return self.append_to_list_option(key, value)

    def on_error(self, errback: Signature[Any]) -> Self:
        """Do as `link_error` does; return itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: S) -> S:
        """Add to an option that is a list, unless it is there."""
        items = self.options[key] = maybe_list(self.options.get(key))
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add several to an option that is a list."""
        self.options[key] = [*maybe_list(self.options.get(key)), *maybe_list(value)]

    def flatten_links(self) -> list[Signature[Any]]:
        """Return itself, its callbacks, theirs, and so on."""
        found: list[Signature[Any]] = [self]
        for link in maybe_list(self.options.get("link")):
            found += as_signature(link, self._app).flatten_links()
        return found

    # --- ids

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[R]:
        """Give it the id under which it will be sent, and return its result. One that it has already stays."""
        options = self.options
        options["task_id"] = task_id = options.get("task_id") or _id or fresh_id()
        options.setdefault("reply_to", reply_oid(id(self.app)))
        given = {"root_id": root_id, "parent_id": parent_id, "group_id": group_id, "chord": chord, "group_index": group_index}
        options.update({key: value for key, value in given.items() if value is not None})
        result: AsyncResult[R] = AsyncResult(task_id, app=self._app or (self._type.app if self._type else None), task_name=self.task)
        result.ignored = bool(options.get("ignore_result", self._ignores()))
        return result

    _freeze = freeze

    def _ignores(self) -> bool:
        task = self._type or self.app.tasks.get(self.task)
        return False if task is None else bool(task.ignore_result)

    def clone_options(self) -> dict[str, Any]:
        """Return a copy of its options that shares nothing with them."""
        return copied_options(self.options)

    # --- joining with others

    def __or__(self, other: Any) -> Any:
        return unite.unite(self, as_signature(other, self._app))

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    # --- stamping

    def stamp(self, visitor: stamping.StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps, headers that say what belongs together, on it and on all that follows it."""
        stamping.stamp(self, visitor, append_stamps, headers)

    def stamp_links(self, visitor: stamping.StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on its callbacks and errbacks."""
        stamping.stamp_links(self, visitor, append_stamps, headers)

    def _parts(self) -> Iterator[Signature[Any]]:
        """Yield the signatures that it is made of, in order."""
        yield from ()

    # --- showing

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return it as a call in Python, with further arguments."""
        positional, named, _ = self._merge(args, kwargs, {}, force=True)
        shown = [*map(saferepr, positional), *(f"{key}={saferepr(value)}" for key, value in named.items())]
        return f"{self.task}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        """Return the plain dict that JSON writes."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)


def _normal(d: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fresh dict with all keys of a signature."""
    return {
        **d,
        "task": d.get("task"),
        "args": tuple(d.get("args") or ()),
        "kwargs": dict(d.get("kwargs") or {}),
        "options": copied_options(d.get("options") or {}),
        "subtask_type": d.get("subtask_type"),
        "immutable": bool(d.get("immutable")),
    }


def as_signature(value: Any, app: Umbel | None = None) -> Signature[Any]:
    """Return a signature as it is, and a dict as the signature that it describes."""
    if isinstance(value, Signature):
        return value
    if isinstance(value, Mapping):
        return Signature.from_dict(value, app=app)
    raise no_signature(value)


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """Make a signature: of a task or its name and arguments, of a dict, or a copy of a signature."""
    app = kwargs.get("app")
    if isinstance(varies, Signature):
        return varies.clone(app=app) if not args else varies.clone(*args, app=app)
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=app)
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Umbel | None = None, clone: bool = False) -> Any:
    """Return a dict as a signature, a signature as it is or as a *clone*; anything else as it is."""
    if d is None:
        return None
    if isinstance(d, Signature):
        d = d.clone() if clone else d
        if app is not None:
            d._app = app  # noqa: SLF001 - its own class's
        return d
    return Signature.from_dict(d, app=app) if isinstance(d, Mapping) else d


subtask = signature
