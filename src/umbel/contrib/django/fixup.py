"""What makes an app a Django project's: set up before task modules load, connections tended around each task."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from umbel import signals
from umbel.current import default_app
from umbel.exceptions import FixupWarning, ImproperlyConfigured

if TYPE_CHECKING:
    from umbel.app import Umbel

__all__ = ["DjangoFixup", "fixup"]


def fixup(app: Umbel) -> DjangoFixup | None:
    """Turn on the integration for *app* if there are Django and its settings."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return None
    if find_spec("django") is None:
        warnings.warn(
            "DJANGO_SETTINGS_MODULE is set and Django is not installed. Install it, or unset the variable.", FixupWarning, stacklevel=2
        )
        return None
    return DjangoFixup(app)


class DjangoFixup:
    """The integration of one app."""

    def __init__(self, app: Umbel) -> None:
        from django.core.signals import setting_changed  # type: ignore[import-untyped]

        self.app = app
        if default_app() is None:
            app.set_default()
        here = str(os.getcwd())  # noqa: PTH109 - sys.path holds text
        if here not in sys.path:
            sys.path.insert(0, here)
        if app.task_cls is None:
            app.task_cls = "umbel.contrib.django.task:DjangoTask"
        signals.import_modules.connect(self.on_import_modules, sender=app)
        signals.worker_init.connect(self.on_worker_init)
        setting_changed.connect(self.on_setting_changed)

    def autodiscover_tasks(self) -> list[str]:
        """Return the packages of the project's apps."""
        from django.apps import apps  # type: ignore[import-untyped]

        return [config.name for config in apps.get_app_configs()]

    def on_import_modules(self, **_: Any) -> None:
        """Set Django up and run its checks, before the modules of tasks are imported."""
        import django  # type: ignore[import-untyped]

        django.setup()
        if not os.environ.get("CELERY_SKIP_CHECKS"):
            run_checks()

    def on_worker_init(self, sender: Any, **_: Any) -> None:
        """Tend connections from now on, if the worker is this app's."""
        if getattr(sender, "app", None) is not self.app:
            return
        from umbel.contrib.django import connections

        connections.install()

    def on_setting_changed(self, **_: Any) -> None:
        """Read the settings again: a test overrides one."""
        self.app.conf.invalidate()


def run_checks() -> None:
    """Run Django's checks.

    Raises:
        ImproperlyConfigured: some found an error; the text is theirs.
    """
    from django.core import checks  # type: ignore[import-untyped]

    errors = [found for found in checks.run_checks() if found.is_serious() and not found.is_silenced()]
    if errors:
        told = "\n\n".join(str(error) for error in errors)
        raise ImproperlyConfigured(f"Django's checks found errors, so nothing is started (--skip-checks ignores them):\n\n{told}")
