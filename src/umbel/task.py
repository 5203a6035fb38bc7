"""A task: a function, its options, and the ways to call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from umbel import exceptions, publish, states
from umbel.arguments import Arity
from umbel.attempts import deliver
from umbel.canvas.of_task import MakesSignatures
from umbel.canvas.start import start_linked
from umbel.commit import on_commit
from umbel.context import Context
from umbel.current import all_apps, current_frame, get_current_app, pop_frame, push_frame, request_of
from umbel.result import AsyncResult, EagerResult
from umbel.retry import RetryPolicy
from umbel.retrying import build_retry, retry_policy_of
from umbel.said import store_state
from umbel.using import connection_for

if TYPE_CHECKING:
    from umbel.app import Umbel
    from umbel.backend import ResultBackend

__all__ = ["Task"]

P = ParamSpec("P")
R = TypeVar("R")


class AppOfTask:
    """The app of a task: the one it was made for, else the current one of the calling thread."""

    def __get__(self, task: Task[..., Any] | None, owner: type[Task[..., Any]]) -> Umbel:
        return (owner if task is None else task)._app or get_current_app()  # noqa: SLF001 - its own descriptor

    def __set__(self, task: Task[..., Any], app: Umbel) -> None:
        task._app = app  # noqa: SLF001


class FromConf:
    """An option that a setting decides unless the task does."""

    def __init__(self, setting: str) -> None:
        self.setting = setting

    @overload
    def __get__(self, task: None, owner: Any) -> None: ...
    @overload
    def __get__(self, task: Task[..., Any], owner: Any) -> Any: ...
    def __get__(self, task: Task[..., Any] | None, owner: Any) -> Any:
        return None if task is None else getattr(task.app.conf, self.setting)  # a third of the time of [self.setting]


class Task(MakesSignatures[R], Generic[P, R]):
    """An ordinary class: subclass it, set its attributes, override its handlers."""

    name: str = None  # type: ignore[assignment]  # set when it is registered
    app = AppOfTask()
    _app: Umbel | None = None

    # --- options; None: as the setting says

    typing: bool | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 3 * 60  # seconds
    rate_limit: Any = FromConf("task_default_rate_limit")
    time_limit: Any = FromConf("task_time_limit")
    soft_time_limit: Any = FromConf("task_soft_time_limit")
    ignore_result: Any = FromConf("task_ignore_result")
    store_errors_even_if_ignored: Any = FromConf("task_store_errors_even_if_ignored")
    store_eager_result: Any = FromConf("task_store_eager_result")
    track_started: Any = FromConf("task_track_started")
    acks_late: Any = FromConf("task_acks_late")
    acks_on_failure_or_timeout: Any = FromConf("task_acks_on_failure_or_timeout")
    acks_on_failure: Any = FromConf("task_acks_on_failure")
    acks_on_timeout: Any = FromConf("task_acks_on_timeout")
    reject_on_worker_lost: Any = FromConf("task_reject_on_worker_lost")
    retry_on_worker_lost: Any = FromConf("task_retry_on_worker_lost")
    serializer: Any = FromConf("task_serializer")
    compression: Any = FromConf("task_compression")
    priority: int | None = None
    queue: Any = None
    exchange: Any = None
    routing_key: str | None = None
    delivery_mode: int | str | None = None
    expires: Any = None
    send_events: bool = True
    trail: bool = True
    throws: tuple[type[BaseException], ...] = ()
    resultrepr_maxsize: int = 1024
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600  # seconds
    retry_jitter: bool = True
    abstract: bool = True

    MaxRetriesExceededError: ClassVar[type[Exception]] = exceptions.MaxRetriesExceededError
    OperationalError: ClassVar[type[Exception]] = exceptions.OperationalError

    _bound = True  # does `run` take the task as its first argument? In a class it does so by itself.
    _arity: Arity | None = None
    _own_call = False  # has it an apply_async of its own? Then canvases call that

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for option, value in list(vars(cls).items()):
            if value is None and isinstance(vars(Task).get(option), FromConf):
                delattr(cls, option)  # None means: as the setting says
        cls._own_call = cls.apply_async is not Task.apply_async

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            for app in all_apps:
                app.plans.pop(self.name, None)  # what was worked out from the old value
        super().__setattr__(name, value)
        if name == "apply_async":
            self._own_call = True

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work; a subclass has this, or the decorated function is it."""
        raise NotImplementedError(f"{type(self).__name__} has no run() method. Define it, or decorate a function with @app.task.")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run here and now, as a plain function; from a `__call__` of one's own in a worker, as the request that runs."""
        frame = current_frame()
        if frame is not None and frame.task is self and frame.request.__dict__.pop("entering", False):
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        token = push_frame(self, Context(args=args, kwargs=kwargs))
        try:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            pop_frame(token)

    def time_limits(self) -> dict[str, Any]:
        """Return its own limits, which travel with each call; those of the settings are for the worker that runs it.

        Raises:
            ValueError: the soft limit is above the hard one.
        """
        own = {name: vars(self).get(name, getattr(type(self), name)) for name in ("time_limit", "soft_time_limit")}
        hard, soft = own.values()
        if hard and soft and soft > hard:
            raise ValueError(f"soft_time_limit must be less than or equal to time_limit: {self.name} has {soft} and {hard} seconds.")
        return {name: value for name, value in own.items() if value is not None}

    # --- calling

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,  # noqa: ARG002 - Celery's; connections are the driver's own
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        *,
        using: object = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send a call.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            task_id: the id; a new one if None.
            producer: has no effect.
            link: signatures that start with the value when it has succeeded.
            link_error: signatures that are told when it has failed.
            shadow: the name to show in logs.
            using: a connection whose transaction the call is to be part of, or the alias of one of Django's (see `Umbel.publish_using`).
            options: countdown, eta, expires, queue, exchange, routing_key, priority, serializer, compression, headers,
                ignore_result, retry, retry_policy, add_to_parent, once_key with once_for…

        Raises:
            TypeError: the task does not take these arguments.
            EncodeError: they cannot be written as a message.
            BrokerUnavailable: the broker did not take the message in time.
        """
        app = self.app
        args, kwargs = self.checked(args, kwargs)
        if task_id or link or link_error or shadow:
            options.update(task_id=task_id, link=link, link_error=link_error, shadow=shadow)
        if app.conf.task_always_eager:
            return app.call_eagerly(self, args, kwargs, options)
        if options and publish.is_followed(options):
            draft = start_linked(app, self.name, args, kwargs, options, {**options, "using": using})
        else:
            draft = self.draft(args, kwargs, options)
            publish.publish(app, (draft,), options.get("retry"), options.get("retry_policy"), using)
        return self.sent(draft, options)

    def checked(self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments as they are sent, if the task can take them."""
        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        if type(args) is not tuple and not isinstance(args, list | tuple):
            raise TypeError("task args must be a list or tuple")
        if type(kwargs) is not dict and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        if self.typing is not False and (self.typing or self.app.strict_typing):
            if self._arity is None:
                self._arity = Arity.of(self.run, skip_first=False)
            arity = self._arity
            # The usual call, by position, is judged here and at once.
            if arity is not None and (kwargs or not arity.least <= len(args) <= arity.most):
                arity.check(self.name, args, kwargs)
        return args, kwargs

    def draft(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> publish.Draft:
        """Build the message of a call without sending it."""
        if type(self).shadow_name is not Task.shadow_name and not options.get("shadow"):
            options = {**options, "shadow": self.shadow_name(args, kwargs, options)}
        return publish.draft(publish.plan_of(self.app, self.name, self), self.name, args, kwargs, options)

    def sent(self, draft: publish.Draft, options: Mapping[str, Any]) -> AsyncResult[R]:
        """Return the result of a call that was sent, and note it in the task that sent it."""
        app = self.app
        result: AsyncResult[R] = AsyncResult(draft.item.id, None, self.name, app)
        if draft.ignored:
            result.ignored = True
        return result if current_frame() is None else app.note_child(result, options)

    def delay_many(
        self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], *, using: object = None, **options: Any
    ) -> list[AsyncResult[R]]:
        """Send many calls at once, up to 500 in one step of the broker; each is a pair of args and kwargs.

        Raises:
            BrokerUnavailable: the broker did not take all; those of earlier steps are sent.
        """
        if self.app.conf.task_always_eager:
            return [self.apply_async(args, kwargs, **options) for args, kwargs in calls]
        checked = [self.checked(args, kwargs) for args, kwargs in calls]
        if type(self).shadow_name is not Task.shadow_name:
            drafts = [self.draft(args, kwargs, options) for args, kwargs in checked]
        else:
            drafts = publish.drafts(publish.plan_of(self.app, self.name, self), self.name, checked, options)
        publish.publish(self.app, drafts, options.get("retry"), options.get("retry_policy"), using)
        return [self.sent(draft, options) for draft in drafts]

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Do as `delay` does without blocking the event loop."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *, using: object = None, **options: Any
    ) -> AsyncResult[R]:
        """Do as `apply_async` does; what many coroutines send at a time goes in one step of the broker."""
        args, kwargs = self.checked(args, kwargs)
        if self.app.conf.task_always_eager:
            return self.app.call_eagerly(self, args, kwargs, options)
        if options and publish.is_followed(options):
            from asyncio import to_thread

            return await to_thread(self.apply_async, args, kwargs, using=using, **options)
        draft = self.draft(args, kwargs, options)
        if (using := connection_for(self.app, using)) is None:
            await self.app.sender.send(draft)
        else:  # here: a transaction is nothing for another thread
            publish.publish(self.app, (draft,), using=using)
        return self.sent(draft, options)

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call when Django's transaction commits; at once outside of one."""
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *, using: str | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send a call when the transaction of the database *using* commits, and return its result, with its id, now.

        Raises:
            TypeError, EncodeError: at once, not at the commit.
            ImproperlyConfigured: there is no Django, or it has no settings.
        """
        args, kwargs = self.checked(args, kwargs)
        return on_commit(self, args, kwargs, using, options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run a call here and now, as a worker would."""
        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        result: EagerResult[R] = self.app.call_eagerly(self, args, kwargs, options)
        return result

    # --- inside a running task

    @property
    def request(self) -> Context:
        """What the running call knows of itself."""
        return request_of(self)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> exceptions.Retry:
        """Ask to be run again: raise what tells the worker so.

        Args:
            args: other positional arguments than this time.
            kwargs: other keyword arguments.
            exc: why; raised itself when there are no retries left.
            throw: False returns the exception and sends the next run at once.
            eta: when.
            countdown: in how many seconds; `default_retry_delay` if neither is given.
            max_retries: this time's limit; None: the task's.
            options: as for `apply_async`.

        Raises:
            Retry: always, unless *throw* is False.
            MaxRetriesExceededError: there are no retries left and no *exc*.
        """
        retry = build_retry(self, args, kwargs, exc, eta=eta, countdown=countdown, max_retries=max_retries, options=options)
        if throw:
            raise retry
        if not retry.is_eager:
            deliver(self.app, [retry.sig], None, None)
        return retry

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **fields: Any) -> None:
        """Store a state of one's own, such as PROGRESS with how far it is."""
        del fields
        store_state(self, task_id, state or states.STARTED, meta)

    def progress(self, current: float, total: float, message: str = "") -> None:
        """Say how far the running task is: `AsyncResult.progress`, `umbel result ID --watch` and any page can show it."""
        self.update_state(state="PROGRESS", meta={"current": current, "total": total, "message": message})

    def add_trail(self, result: AsyncResult[Any]) -> AsyncResult[Any]:
        """Note a result as that of a child."""
        if self.trail:
            self.request.children.append(result)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """Return the result of a call by its id."""
        return AsyncResult(task_id, app=self.app, task_name=self.name, **kwargs)

    @property
    def backend(self) -> ResultBackend:
        """The backend of the app."""
        return self.app.backend

    @property
    def retry_policy(self) -> RetryPolicy:
        """When and how the worker retries by itself."""
        return retry_policy_of(self)

    # --- handlers: override what you need

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Runs before the task."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Runs after it ended well."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs after it failed."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs after it asked for a retry."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Runs after success and failure."""

    @classmethod
    def _get_app(cls) -> Umbel:
        """Return the app; packages for Celery ask so."""
        return cls._app or get_current_app()

    @classmethod
    def on_bound(cls, app: Umbel) -> None:
        """Runs when an app takes the task."""

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return another name to show in logs."""

    def __repr__(self) -> str:
        return f"<@task: {self.name}>" if self._app is None else f"<@task: {self.name} of {self._app.main or '__main__'}>"
