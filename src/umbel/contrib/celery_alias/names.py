"""What the alias has: one line for each module of Celery's, one for each name that is of no such module.

A module of `SAME` is the very module of umbel. One of `MADE` is made of names of several: `umbel.app: Celery, default=x` says that
`Celery` is that of `umbel.app`, and `default` its `x`. What stands in `ABSENT` is not there, with what to do instead.
"""

from __future__ import annotations

from typing import Final

from umbel.later import EVENTS

__all__ = ["ABSENT", "BY_KOMBU", "COMPANIONS", "MADE", "SAME", "WHY"]

COMPANIONS: Final = ("kombu", "billiard")  # packages that come with Celery, and of which the alias has a few names

SAME: Final = {
    "celery.__main__": "umbel.__main__",
    "celery.beat": "umbel.beat",
    "celery.canvas": "umbel.canvas",
    "celery.contrib": "umbel.contrib",
    "celery.contrib.django": "umbel.contrib.django",
    "celery.contrib.django.task": "umbel.contrib.django.task",
    "celery.contrib.pytest": "umbel.contrib.pytest",
    "celery.contrib.testing": "umbel.contrib.testing",
    "celery.contrib.testing.app": "umbel.contrib.testing.app",
    "celery.contrib.testing.manager": "umbel.contrib.testing.manager",
    "celery.contrib.testing.mocks": "umbel.contrib.testing.mocks",
    "celery.contrib.testing.tasks": "umbel.contrib.testing.tasks",
    "celery.contrib.testing.worker": "umbel.contrib.testing.worker",
    "celery.exceptions": "umbel.exceptions",
    "celery.result": "umbel.result",
    "celery.schedules": "umbel.schedules",
    "celery.signals": "umbel.signals",
    "celery.states": "umbel.states",
    "celery.utils": "umbel.utils",
    "celery.utils.collections": "umbel.utils.collections",
    "celery.utils.functional": "umbel.utils.functional",
    "celery.utils.imports": "umbel.utils.imports",
    "celery.utils.log": "umbel.utils.log",
    "celery.utils.nodenames": "umbel.utils.nodenames",
    "celery.utils.serialization": "umbel.utils.serialization",
    "celery.utils.time": "umbel.utils.time",
}

_EXTRAS, _TRACING, _EXCEPTIONS = "umbel.contrib.celery_alias.extras", "umbel.contrib.celery_alias.tracing", "umbel.exceptions"
_CANVAS = "umbel.canvas: Signature chain chord chunks group maybe_signature signature subtask xmap xstarmap"

MADE: Final = {
    "celery": (
        "umbel.app: Celery", "umbel.task: Task", "umbel.current: current_app current_task", "umbel.shared: shared_task", "umbel.ids: uuid",
        _CANVAS, f"{_EXTRAS}: VERSION VERSION_BANNER __version__ bugreport maybe_patch_concurrency version_info",
    ),
    "celery._state": (
        "umbel.current: current_app current_task get_current_app get_current_task set_default_app",
    ),
    "celery.app": ("umbel.app: App Celery", "umbel.task: Task", "umbel.shared: shared_task", f"{_EXTRAS}: app_or_default bugreport"),
    "celery.app.base": ("umbel.app: App Celery", "umbel.shared: gen_task_name"),
    "celery.app.control": ("umbel.control: Control",),
    "celery.app.defaults": ("umbel.logs: DEFAULT_PROCESS_LOG_FMT=FORMAT DEFAULT_TASK_LOG_FMT=TASK_FORMAT",),
    "celery.app.log": ("umbel.logs: ColorFormatter LoggingProxy TaskFormatter",),
    "celery.app.registry": ("umbel.registry: TaskRegistry",),
    "celery.app.task": ("umbel.task: Task", "umbel.context: Context"),
    "celery.app.trace": (f"{_TRACING}: build_tracer task_has_custom", "umbel.execution.failure: ExceptionInfo=ErrorInfo"),
    "celery.app.utils": ("umbel.config: Settings", "umbel.cli.find: find_app", f"{_EXTRAS}: bugreport"),
    "celery.backends": (),
    "celery.backends.base": ("umbel.drivers.disabled: DisabledBackend", "umbel.current: get_current_task"),
    "celery.bin": (),
    "celery.bin.base": ("umbel.cli.base: CeleryCommand=Command",),
    "celery.bin.worker": ("umbel.cli.worker: worker",),
    "celery.bin.celery": ("umbel.cli: celery=main main",),
    "celery.fixups": (),
    "celery.fixups.django": ("umbel.contrib.django.fixup: fixup",),
    "celery.local": ("umbel.current: Proxy",),
    "celery.registry": (f"{_EXTRAS}: tasks",),
    "celery.utils.abstract": ("umbel.task: CallableTask=Task",),
    "celery.utils.dispatch": ("umbel.signals: Signal",),
    "celery.utils.saferepr": ("umbel.wire.saferepr: saferepr",),
    "celery.worker": ("umbel.worker.worker: WorkController=Worker",),
    "celery.worker.request": ("umbel.context: Request=Context",),
    "billiard": (f"{_EXTRAS}: VERSION=BILLIARD_VERSION __version__=BILLIARD",),
    "billiard.einfo": ("umbel.execution.failure: ExceptionInfo=ErrorInfo", f"{_TRACING}: ExceptionWithTraceback"),
    "billiard.exceptions": (f"{_EXCEPTIONS}: SoftTimeLimitExceeded Terminated TimeLimitExceeded WorkerLostError",),
    "billiard.pool": (f"{_TRACING}: Worker",),
    "kombu": (
        "umbel.routing: Exchange Queue", f"{_TRACING}: Producer", f"{_EXTRAS}: VERSION=KOMBU_VERSION __version__=KOMBU",
        "umbel.ids: uuid",
    ),
    "kombu.exceptions": (
        f"{_EXCEPTIONS}: ChannelLimitExceeded ConnectionLimitExceeded ContentDisallowed DecodeError EncodeError InconsistencyError",
        f"{_EXCEPTIONS}: KombuError LimitExceeded MessageStateError NotBoundError OperationalError SerializationError",
        f"{_EXCEPTIONS}: SerializerNotInstalled VersionMismatch reraise", f"{_EXTRAS}: ConnectionError=SystemConnectionError",
    ),
    "kombu.messaging": (f"{_TRACING}: Producer",),
    "kombu.serialization": ("umbel.wire.serializers: register",),
    "kombu.utils": (f"{_EXTRAS}: cached_property", "umbel.utils.imports: symbol_by_name", "umbel.ids: uuid"),
    "kombu.utils.compat": (f"{_EXTRAS}: register_after_fork",),
    "kombu.utils.encoding": (f"{_EXTRAS}: bytes_to_str ensure_bytes safe_repr safe_str str_to_bytes",),
    "kombu.utils.json": ("umbel.wire.jsontypes: dumps loads register_type",),
    "kombu.utils.objects": (f"{_EXTRAS}: cached_property",),
    "kombu.utils.url": ("umbel.config_values: maybe_sanitize_url=masked",),
    "kombu.utils.uuid": ("umbel.ids: uuid",),
}  # fmt: skip

_CUSTOM: Final = (
    "umbel has no custom requests, strategies, consumers and pools. Use signals, or `before_start` and `after_return` of a task."
)
_BACKENDS: Final = "umbel's result backends are drivers: see umbel.backend.ResultBackend, and docs/how-to/choose-a-result-backend.md."
_SETTINGS: Final = "app.conf is whole from the start: read it."

# Modules, and names as `module:name`.
ABSENT: Final = {
    "celery._state:_task_stack": _CUSTOM,
    "celery._state:connect_on_app_finalize": "Use shared_task for a task of all apps, or the signal app.on_after_finalize.",
    "celery.app.base:PendingConfiguration": _SETTINGS,
    "celery.app.control:Inspect": EVENTS,
    "celery.app.control:flatten_reply": EVENTS,
    "celery.backends.base:BaseBackend": _BACKENDS,
    "celery.backends.base:BaseDictBackend": _BACKENDS,
    "celery.backends.base:BaseKeyValueStoreBackend": _BACKENDS,
    "celery.backends.base:KeyValueStoreBackend": _BACKENDS,
    "celery.backends.database": _BACKENDS,
    "celery.bootsteps": _CUSTOM,
    "celery.concurrency": _CUSTOM,
    "celery.concurrency.base": _CUSTOM,
    "celery.concurrency.prefork": _CUSTOM,
    "celery.contrib.abortable": "Use revoke(), and `self.request.stopping` in the task.",
    "celery.contrib.migrate": "Let a Celery worker, or an umbel worker, empty the old broker.",
    "celery.contrib.rdb": "Run the task with -P solo and use breakpoint().",
    "celery.events": EVENTS,
    "celery.events.state": EVENTS,
    "celery.loaders": "Use config_from_object, and the signal import_modules.",
    "celery.platforms": "umbel.supervisor does what a daemon needs: `umbel worker --detach`.",
    "celery.task": "Celery has none either, since version 5: use shared_task, or celery.Task.",
    "celery.worker.consumer": _CUSTOM,
    "celery.worker.request:create_request_cls": _CUSTOM,
    "celery.worker.strategy": _CUSTOM,
    "kombu.asynchronous": _CUSTOM,
    "kombu.message": _CUSTOM,
}

BY_KOMBU: Final = (
    "The alias has of kombu only what code of tasks needs. If yours talks to a broker by itself, install kombu and call "
    "umbel.install_as_celery(companions=False): then `kombu` is kombu, but its exceptions are not those that umbel raises."
)
WHY: Final = {"celery.events": EVENTS}
