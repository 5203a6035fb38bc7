"""chord: side by side, and then one with the list of their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from umbel.canvas.groups import group
from umbel.canvas.signatures import Signature, as_signature

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["chord"]

NO_BODY = "A chord needs a body. Give it: chord(header)(body)."
HEADER_ID = "header_id"  # ours: the option that keeps the id of the header's group once it is fixed


@Signature.register_type("chord")
class chord(Signature[Any]):  # noqa: N801 - Celery's name
    """A header, whose members run side by side, and a body that starts with the list of their values.

    Args:
        header: a group, or an iterable of signatures.
        body: a signature; it may be given at the call, too, as in `chord(header)(body)`.
        task: Celery's name of its task.
        args: further arguments of the members.
        kwargs: further keyword arguments of the members.
        app: whose tasks they are.
        options: of the members and the body.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Umbel | None = None,
        **options: Any,
    ) -> None:
        of_header = (
            header if isinstance(header, group) else group(header if isinstance(header, Iterable) and not _is_one(header) else [header])
        )
        own = {"kwargs": dict(kwargs or {}), "header": of_header.tasks, "body": None if body is None else as_signature(body, app)}
        further = {key: value for key, value in of_header.options.items() if key != "task_id"} if of_header is header else {}
        if of_header is header and header.options.get("task_id"):
            further[HEADER_ID] = header.options["task_id"]
        app = app or of_header._app  # noqa: SLF001
        super().__init__(task, (*(args or ()), *of_header.args), own, {**further, **options}, subtask_type="chord", app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Umbel | None = None) -> Signature[Any]:
        """Read a dict; the header is a list or a group in it."""
        fields = dict(d.get("kwargs") or {})
        header = fields.get("header") or ()
        if isinstance(header, Mapping):
            header = as_signature(header, app)
        else:
            header = group([as_signature(task, app).clone() for task in header], app=app)
        body = fields.get("body")
        made = cls(header, None if body is None else as_signature(body, app).clone(), kwargs=fields.get("kwargs"), app=app)
        made.args, made.immutable = (*(d.get("args") or ()), *made.args), bool(d.get("immutable"))
        made.options.update(Signature({"options": d.get("options") or {}}).clone_options())
        return made

    @property
    def tasks(self) -> Sequence[Signature[Any]]:
        """The members of the header."""
        header = self.kwargs["header"]
        found: Sequence[Signature[Any]] = as_signature(header).tasks if isinstance(header, Mapping) else header  # type: ignore[attr-defined]
        return found

    @tasks.setter
    def tasks(self, tasks: Iterable[Signature[Any]]) -> None:
        self.kwargs["header"] = list(tasks)

    @property
    def app(self) -> Umbel:
        """Whose tasks they are: the first member's app, else the body's, if it was not said."""
        first = next(iter(self.tasks), self.body)
        return self._app or (super().app if first is None else as_signature(first).app)

    @property
    def body(self) -> Any:
        """The body."""
        return self.kwargs.get("body")

    @body.setter
    def body(self, body: Any) -> None:
        self.kwargs["body"] = body

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with a body if it has none."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, route_name: str | None = None, **options: Any
    ) -> Any:
        """Send it: further arguments go to the members, and the keyword argument `body` is the body.

        Raises:
            TypeError: there is no body.
            NotImplementedError: the result backend keeps no workflows.
        """
        further = dict(kwargs or {})
        body = further.pop("body", None) or self.body
        if body is None:
            raise TypeError(NO_BODY)
        return Signature.apply_async(self._with_body(body), args, further, route_name, **options)

    def _with_body(self, body: Any) -> Self:
        """Return a copy that shares the header, whose members may be many and are copied when they are sent."""
        complete: Self = dict.__new__(type(self))
        dict.__init__(complete, {**self, "options": self.clone_options()})
        complete.kwargs = {**self.kwargs, "body": as_signature(body, self._app).clone()}
        complete._app, complete._type = self._app, self._type
        return complete

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and now."""
        further = dict(kwargs or {})
        complete, body = self.clone(), further.pop("body", None) or self.body
        if body is None:
            raise TypeError(NO_BODY)
        complete.body = as_signature(body, self._app).clone()
        return Signature.apply(complete, args, further, **options)

    def set_immutable(self, immutable: bool) -> None:
        """Say whether the members take further arguments."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Let *callback* follow the body."""
        if self.body is None:
            return super().link(callback)
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Let *errback* follow a failure of the body, which also fails with the header.

        With `task_allow_error_cb_on_chord_header` a copy follows each member, too.
        """
        each = self.app.conf.task_allow_error_cb_on_chord_header
        for task in self.tasks:
            if each:
                task.link_error(as_signature(errback).clone().set(immutable=True))
            elif task.subtask_type == "chord":
                task.link_error(as_signature(errback).clone())
        if self.body is None:
            return super().link_error(errback)
        self.body.link_error(errback)
        return errback

    def _copied_kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        header, body = kwargs["header"], kwargs.get("body")
        tasks = as_signature(header).tasks if isinstance(header, Mapping) else header  # type: ignore[attr-defined]
        return {
            **kwargs,
            "header": [as_signature(task, self._app).clone() for task in tasks],
            "body": None if body is None else as_signature(body, self._app).clone(),
        }

    def _parts(self) -> Iterator[Signature[Any]]:
        self.tasks = [as_signature(task, self._app) for task in self.tasks]
        yield from self.tasks
        if self.body is not None:
            self.body = as_signature(self.body, self._app)
            yield self.body

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give each member and the body its id; return the result of the body, whose parent is the header's."""
        header = group(list(self.tasks), app=self._app)
        results = header.freeze(self.options.get(HEADER_ID), parent_id=parent_id, root_id=root_id)
        self.options[HEADER_ID], self.tasks = results.id, header.tasks
        if self.body is None:
            return results
        self.body = as_signature(self.body, self._app)
        result = self.body.freeze(self.options.get("task_id") or _id, group_id, chord, root_id, None, group_index)
        self.options["task_id"] = result.id
        first = result
        while first.parent is not None:
            first = first.parent
        if results.results:
            first.parent = results
        return result

    _freeze = freeze

    def __length_hint__(self) -> int:
        return sum(count_parts(task) for task in self.tasks)

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {list(self.tasks)!r}>"
        return f"%{self.body.task}({list(self.tasks)!r})"


def _is_one(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, group)


def count_parts(sig: Any) -> int:
    """Return for how many parts of a header *sig* counts."""
    kind = sig.subtask_type
    if kind == "group":
        return sum(map(count_parts, sig.tasks))
    if kind == "chain":
        return next((parts for parts in map(count_parts, reversed(sig.tasks)) if parts), 0)
    if kind == "chord":
        return 0 if sig.body is None else count_parts(sig.body)
    return 1


def gives_value(sig: Any) -> bool:
    """Whether a member of a header, which is no group, has a place in the list of its values: there is a task, or a chord, in it."""
    return sig.subtask_type != "chain" or any(map(gives_value, sig.tasks))
