"""Making tasks of functions, and tasks that belong to no one app."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from umbel.current import all_apps, known_app
from umbel.exceptions import DuplicateTaskNameWarning, NotSupported
from umbel.task import Task

__all__ = ["BoundDecorator", "Decorator", "add_task", "build_task", "gen_task_name", "shared_task", "shared_tasks"]

P = ParamSpec("P")
R = TypeVar("R")

shared_tasks: dict[str, Task[..., Any]] = {}  # every app shows them

DECORATOR_ONLY = frozenset({"shared", "lazy", "filter", "pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs"})


class Decorator(Protocol):
    """What `@app.task(...)` returns."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...


class BoundDecorator(Protocol):
    """What `@app.task(bind=True, ...)` returns."""

    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


def gen_task_name(main: str | None, name: str, module: str) -> str:
    """Return the name of the task *name* of *module*; in the script being run it starts with the app's name."""
    if module == "__main__" or _is_main(module):
        module = main or "__main__"
    return f"{module}.{name}" if module else name


def _is_main(module: str) -> bool:
    file, main = (getattr(sys.modules.get(name), "__file__", None) for name in (module, "__main__"))
    return file is not None and file == main


def build_task(fun: Callable[..., Any], base: type[Task[..., Any]], name: str, *, bind: bool, options: dict[str, Any]) -> Task[..., Any]:
    """Make a task of a function: an instance of a class that has *options* as attributes.

    Raises:
        NotSupported: an option is not built yet.
    """
    if options.get("pydantic"):
        raise NotSupported(f"{name}: pydantic=True comes with a later version of umbel. Validate inside the task.")
    attributes = {key: value for key, value in options.items() if key not in DECORATOR_ONLY}
    attributes.update(
        name=name,
        run=fun if bind else staticmethod(fun),
        _bound=bind,
        __doc__=fun.__doc__,
        __module__=fun.__module__,
        __annotations__=getattr(fun, "__annotations__", {}),
        __wrapped__=fun if bind else staticmethod(fun),
    )
    task: Task[..., Any] = type(fun.__name__, (base,), attributes)()
    vars(task)["__qualname__"] = getattr(fun, "__qualname__", fun.__name__)
    vars(task)["__name__"] = fun.__name__
    return task


def add_task(tasks: dict[str, Task[..., Any]], task: Task[..., Any]) -> Task[..., Any]:
    """Register a decorated function; the first of a name stays."""
    known = tasks.setdefault(task.name, task)
    if known is not task and _source(known) != _source(task):
        warnings.warn(f"The task name {task.name!r} is taken by {_source(known)}; {_source(task)} is not registered.",
                      DuplicateTaskNameWarning, stacklevel=4)  # fmt: skip
    return known


def _source(task: Task[..., Any]) -> str:
    run = inspect.unwrap(task.run)
    return f"{getattr(run, '__module__', '?')}.{getattr(run, '__qualname__', '?')}"


@overload
def shared_task(fun: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], name: str | None = None, **options: Any) -> BoundDecorator: ...
@overload
def shared_task(*, name: str | None = None, **options: Any) -> Decorator: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task that belongs to whichever app is current when it is called.

    Args:
        args: the function, if there are no options.
        options: as for `app.task`.
    """

    def decorate(fun: Callable[..., Any]) -> Task[..., Any]:
        if isinstance(fun, Task):
            raise TypeError(f"{fun.name} is a task already: apply @shared_task once.")
        app = known_app()
        base = options.get("base") or (Task if app is None else app.task_class)
        name = options.get("name") or gen_task_name(app.main if app else None, fun.__name__, fun.__module__)
        rest = {key: value for key, value in options.items() if key not in {"base", "name", "bind"}}
        task = build_task(fun, base, name, bind=options.get("bind", False), options={**rest, "_app": None})
        task = add_task(shared_tasks, task)
        for each in list(all_apps):
            each.take_shared(task)
        return task

    return decorated("shared_task", decorate, args)


def decorated(decorator: str, decorate: Callable[[Callable[..., Any]], Any], args: tuple[Any, ...]) -> Any:
    """Answer both `@decorator` and `@decorator(...)`.

    Raises:
        TypeError: the argument is no function, or there are several.
    """
    if not args:
        return decorate
    if len(args) > 1:
        raise TypeError(f"@{decorator}() takes exactly 1 argument ({len(args)} given)")
    if not callable(args[0]):
        raise TypeError(f"argument 1 to @{decorator}() must be a callable")
    return decorate(args[0])
