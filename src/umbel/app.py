"""The app: its settings, its tasks, its drivers."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from umbel import publish, signals
from umbel.app_settings import ConfiguredApp
from umbel.canvas.builtins import builtin_tasks
from umbel.canvas.signatures import Signature, signature
from umbel.canvas.start import start_linked
from umbel.control import Control
from umbel.current import all_apps, default_app, get_current_task, known_app, reach, set_default_app, set_thread_app, worker_frame
from umbel.discovery import import_related
from umbel.eager import call_eagerly
from umbel.exceptions import AlwaysEagerIgnored, NotSupported
from umbel.later import EVENTS, Later
from umbel.registry import TaskRegistry
from umbel.result import AsyncResult, GroupResult, ResultSet
from umbel.shared import BoundDecorator, Decorator, add_task, build_task, decorated, gen_task_name, shared_tasks
from umbel.task import Task as BaseTask
from umbel.using import publish_using

if TYPE_CHECKING:
    from umbel.batching import Sender
    from umbel.result import EagerResult

__all__ = ["App", "Celery", "Umbel"]

P = ParamSpec("P")
R = TypeVar("R")

DJANGO_FIXUP = "umbel.contrib.django.fixup:fixup"
FIXUP_NAMES = {"celery.fixups.django:fixup": DJANGO_FIXUP}
LATER_CLASSES = ("loader", "amqp", "events", "log", "control", "tasks")


class Umbel(ConfiguredApp):
    """An app: what a project imports to define tasks and to send them.

    Args:
        main: its name; also stands for `__main__` in the names of tasks.
        broker: the setting `broker_url`.
        backend: the setting `result_backend`.
        include: the setting `include`.
        task_cls: the class of its tasks, or the dotted path of it.
        namespace: what stands before the names of settings, such as CELERY.
        fixups: integrations with frameworks; an empty one turns Django's off.
        set_as_current: make it the current app of this thread.
        strict_typing: refuse wrong arguments at the call.
        changes: settings as a mapping.
        config_source: as for `config_from_object`.
        config_source_silent: ignore a *config_source* that is not there.
        settings: any other setting.
    """

    task_cls: type[BaseTask[..., Any]] | str | None = None
    builtin_fixups: tuple[str, ...] = (DJANGO_FIXUP,)

    events = Later(EVENTS)

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Sequence[str] | str | None = None,
        task_cls: type[BaseTask[..., Any]] | str | None = None,
        namespace: str | None = None,
        fixups: Iterable[str] | None = None,
        set_as_current: bool = True,
        strict_typing: bool = True,
        autofinalize: bool = True,  # noqa: ARG002 - there is nothing to wait for: tasks are real at once
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        config_source_silent: bool = False,
        **settings: Any,
    ) -> None:
        for name in LATER_CLASSES:
            if settings.pop(name, None) is not None:
                raise NotSupported(f"{name}= replaces a part of Celery that umbel does not have. Use signals, or a subclass of Umbel.")
        self.main = main
        self.strict_typing = strict_typing
        self.task_cls = task_cls or type(self).task_cls
        given = {"broker_url": broker, "result_backend": backend, "include": [include] if isinstance(include, str) else include}
        super().__init__({**(changes or {}), **{key: value for key, value in given.items() if value is not None}, **settings}, namespace)
        self.plans: dict[str, publish.Plan] = {}
        self.finalized = False
        self._sender: Sender | None = None
        self._tasks = TaskRegistry({**builtin_tasks(BaseTask, self), **shared_tasks})
        self._task_class: type[BaseTask[..., Any]] | None = None
        all_apps.add(self)
        if config_source is not None:
            self.config_from_object(config_source, silent=config_source_silent, namespace=namespace)
        if set_as_current:
            self.set_current()
        self._install_fixups(self.builtin_fixups if fixups is None else fixups)
        self.on_init()

    def on_init(self) -> None:
        """A subclass may do more here."""

    def _install_fixups(self, paths: Iterable[str]) -> None:
        self.fixups = []
        for path in paths:
            name = FIXUP_NAMES.get(path, path)
            if name == DJANGO_FIXUP and not os.environ.get("DJANGO_SETTINGS_MODULE"):
                continue  # nothing of Django is imported for those who do not use it
            module, _, attribute = name.partition(":")
            self.fixups.append(getattr(importlib.import_module(module), attribute)(self))

    # --- tasks

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks by name, with the shared ones."""
        self.finalize()
        return self._tasks

    @property
    def task_class(self) -> type[BaseTask[..., Any]]:
        """The class that `task_cls` says."""
        found = self.task_cls or BaseTask
        if isinstance(found, str):
            module, _, attribute = found.replace(":", ".").rpartition(".")
            found = self.task_cls = getattr(importlib.import_module(module), attribute)
        return found

    @property
    def Task(self) -> type[BaseTask[..., Any]]:  # noqa: N802 - Celery's name
        """The base class of this app's tasks."""
        if self._task_class is None:
            base = self.task_class
            self._task_class = type(base.__name__, (base,), {"_app": self, "__module__": base.__module__, "__doc__": base.__doc__})
        return self._task_class

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> BaseTask[P, R]: ...
    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], name: str | None = None, **options: Any) -> BoundDecorator: ...
    @overload
    def task(self, *, name: str | None = None, **options: Any) -> Decorator: ...
    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function.

        Args:
            args: the function, if there are no options.
            options: name, base, bind, and any attribute of a task.
        """

        def decorate(fun: Callable[..., Any]) -> BaseTask[..., Any]:
            if isinstance(fun, BaseTask):
                raise TypeError(f"{fun.name} is a task already: apply @app.task once.")
            name = options.get("name") or self.gen_task_name(fun.__name__, fun.__module__)
            rest = {key: value for key, value in options.items() if key not in {"base", "name", "bind"}}
            base = options.get("base") or self.Task
            task = build_task(fun, base, name, bind=options.get("bind", False), options={**rest, "_app": self})
            task = add_task(self._tasks, task)
            task.on_bound(self)
            return task

        return decorated("task", decorate, args)

    def register_task(self, task: BaseTask[..., Any] | type[BaseTask[..., Any]], **options: Any) -> BaseTask[..., Any]:
        """Register a task made by a class, in place of one of the same name."""
        instance = task() if isinstance(task, type) else task
        if not instance.name:
            instance.name = self.gen_task_name(type(instance).__name__, type(instance).__module__)
        for option, value in options.items():
            setattr(instance, option, value)
        instance.app = self
        self._tasks[instance.name] = instance
        instance.on_bound(self)
        return instance

    def known_task(self, name: str) -> BaseTask[..., Any] | None:
        """Return a task by its name; None if this process does not know it."""
        return self._tasks.get(name)

    def take_shared(self, task: BaseTask[..., Any]) -> None:
        """Show a shared task, unless this app has one of its name."""
        self._tasks.setdefault(task.name, task)

    def gen_task_name(self, name: str, module: str) -> str:
        """Return the name of a task; a subclass may have its own rule."""
        return gen_task_name(self.main, name, module)

    def finalize(self, auto: bool = False) -> None:
        """Say once that all is set up: sends `on_after_finalize`."""
        del auto
        if not self.finalized:
            self.finalized = True
            self.on_after_finalize.send(sender=self)

    # --- finding tasks

    def autodiscover_tasks(
        self, packages: Iterable[str] | Callable[[], Iterable[str]] | None = None, related_name: str | None = "tasks", force: bool = False
    ) -> None:
        """Import the task modules of *packages*: now if *force*, else when a program such as the worker starts.

        Args:
            packages: their names, or what returns them; none: those that fixups know, such as Django's apps.
            related_name: the module in each that defines tasks; None: the package itself.
            force: do it now.
        """

        def discover(**_: Any) -> None:
            names = (packages() if callable(packages) else packages) or self._packages_of_fixups()
            import_related(names, related_name)

        if force:
            discover()
        else:
            signals.import_modules.connect(discover, sender=self, weak=False)

    def _packages_of_fixups(self) -> list[str]:
        return [name for fixup in self.fixups if fixup is not None for name in fixup.autodiscover_tasks()]

    def include_module(self, module: str) -> None:
        """Add a module to those that are imported when a program starts."""
        self.conf.include = [*(self.conf.include or ()), module]

    def import_default_modules(self) -> None:
        """Import what defines tasks: what `import_modules` asks for, then the settings `imports` and `include`.

        Raises:
            Exception: whatever an import raises.
        """
        signals.import_modules.send(sender=self)
        here = str(os.getcwd())  # noqa: PTH109 - sys.path holds text
        if here not in sys.path:
            sys.path.insert(0, here)
        for module in dict.fromkeys([*(self.conf.imports or ()), *(self.conf.include or ())]):
            importlib.import_module(module)

    # --- sending

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *, using: object = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send a call of a task by its name, whether it is known here or not.

        Raises:
            BrokerUnavailable: the broker did not take the message in time.
        """
        if self.conf.task_always_eager:
            warnings.warn(f"task_always_eager does not hold for send_task: {name!r} is sent.", AlwaysEagerIgnored, stacklevel=2)
        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        if not isinstance(args, list | tuple):
            raise TypeError("task args must be a list or tuple")
        if not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        if options and publish.is_followed(options):
            draft = start_linked(self, name, args, kwargs, options, {**options, "using": using})
        else:
            draft = publish.draft(publish.plan_of(self, name, self._tasks.get(name)), name, args, kwargs, options)
            publish.publish(self, (draft,), options.get("retry"), options.get("retry_policy"), using)
        result = options.get("result_cls", AsyncResult)(draft.item.id, app=self, task_name=name)
        result.ignored = draft.ignored
        return self.note_child(result, options)

    def publish_using(self, connection: object) -> AbstractContextManager[None]:
        """Let all calls in this block be part of the transaction of *connection*: a rollback leaves nothing, a commit sends them.

        It is a connection of psycopg or SQLAlchemy, a Session, or a connection of Django's, or its alias, to the broker's database. It
        holds for this thread. Only a broker in PostgreSQL can do so.
        """
        return publish_using(self, connection)

    def note_child(self, result: AsyncResult[R], options: Mapping[str, Any]) -> AsyncResult[R]:
        """List the result of a call that was sent with the task that sent it."""
        frame = worker_frame()
        if frame is not None and frame.task.trail and options.get("add_to_parent", True):
            frame.request.children.append(result)
        return result

    @property
    def sender(self) -> Sender:
        """What sends for coroutines; each process has its own."""
        if self._sender is None or self._sender.pid != os.getpid():
            from umbel.batching import Sender  # brings asyncio, which only coroutines need

            self._sender = Sender(self)
        return self._sender

    def call_eagerly(
        self, task: BaseTask[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> EagerResult[Any]:
        """Run a call here: its message is really written, read and run as a worker does."""
        return call_eagerly(self, task, args, kwargs, options)

    @property
    def control(self) -> Control:
        """The commands to all workers."""
        return Control(self)

    def signature(self, varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Make a signature of a task of this app, or of its name, or of a dict."""
        return signature(varies, *args, **{**kwargs, "app": self})

    def AsyncResult(self, id: str, **kwargs: Any) -> AsyncResult[Any]:  # noqa: N802 - Celery's name
        """Return the result of a task by its id."""
        return AsyncResult(id, app=self, **kwargs)

    def GroupResult(self, id: str | None = None, results: Iterable[Any] | None = None, **kwargs: Any) -> GroupResult[Any]:  # noqa: N802
        """Return the result of a group by its id and its members."""
        return GroupResult(id, results, **{"app": self, **kwargs})

    def ResultSet(self, results: Iterable[Any], **kwargs: Any) -> ResultSet[Any]:  # noqa: N802 - Celery's name
        """Return a set of results."""
        return ResultSet(results, app=self, **kwargs)

    def close(self) -> None:
        """Close the connections, and stop being the current app."""
        self._broker.close()
        self._backend.close()
        if known_app() is self:
            set_thread_app(None)
        if default_app() is self:
            set_default_app(None)
        all_apps.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- current

    def set_current(self) -> None:
        """Make it the current app of this thread."""
        set_thread_app(self)

    def set_default(self) -> None:
        """Make it the app of all threads that have no current one."""
        set_default_app(self)

    @property
    def current_task(self) -> BaseTask[..., Any] | None:
        """The running task."""
        return get_current_task()

    @property
    def current_worker_task(self) -> BaseTask[..., Any] | None:
        """The task that a worker runs here; one that was merely called does not count."""
        frame = worker_frame()
        return None if frame is None else frame.task

    # --- programs

    @property
    def Worker(self) -> Callable[..., Any]:  # noqa: N802 - Celery's name
        """The worker's class, with this app."""
        return partial(reach("worker"), self)

    @property
    def Beat(self) -> Callable[..., Any]:  # noqa: N802 - Celery's name
        """The program that sends periodic tasks, with this app."""
        return partial(reach("beat"), self)

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Run the command line with this app; ends the process as a program does."""
        reach("cli").main(args=list(sys.argv[1:] if argv is None else argv), prog_name="umbel", obj=self)

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Run the worker with this app.

        Raises:
            ValueError: the arguments do not name the command `worker`.
        """
        args = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in args:
            raise ValueError(f"The worker command must be among the arguments, as in ['worker', '-l', 'INFO']; they are {args!r}.")
        self.start(args)

    def __repr__(self) -> str:
        return f"<Celery {self.main or '__main__'} at {id(self):#x}>"


Celery = App = Umbel
