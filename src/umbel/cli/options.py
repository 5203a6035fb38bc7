"""The options that hold for all commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import click

__all__ = ["APP", "FOLDER", "NO_COLOR", "QUIET", "WORDS", "global_options"]

# Keys of click's Context.meta. WORDS is the whole command line, FOLDER where it was given.
APP, FOLDER, NO_COLOR, QUIET, WORDS = "umbel.app", "umbel.folder", "umbel.no_color", "umbel.quiet", "umbel.words"

Callback = Callable[[click.Context, click.Parameter, Any], None]


def note(key: str) -> Callback:
    """Make a callback that keeps an option's value, if there is one, for the whole command line."""

    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            ctx.meta[key] = value

    return keep


def export(variable: str) -> Callback:
    """Make a callback that hands an option's value on through the environment, where children find it too."""

    def put(_: click.Context, __: click.Parameter, value: Any) -> None:
        if value:
            os.environ[variable] = "true" if value is True else str(value)

    return put


def change_directory(_: click.Context, __: click.Parameter, value: str | None) -> None:
    """Go to the folder of the project."""
    if value:
        os.chdir(value)


def as_celery(_: click.Context, __: click.Parameter, value: bool) -> None:
    """Let the project import umbel under Celery's name, also in the programs that this one starts."""
    if value:
        from umbel import install_as_celery

        install_as_celery()
        os.environ["UMBEL_AS_CELERY"] = "1"


# The words, the variables of the environment, what becomes of the value, the help, what else click is to know.
Row = tuple[Sequence[str], Sequence[str], Callback, str, dict[str, Any]]

ROWS: Sequence[Row] = (
    (("-A", "--app"), ("UMBEL_APP", "CELERY_APP", "APP"), note(APP),
     "The app: 'mysite', 'mysite.celery', 'mysite.celery:app'.", {"metavar": "APP"}),
    (("--as-celery",), ("UMBEL_AS_CELERY",), as_celery,
     "Let 'import celery' give umbel, for a project that was written for Celery.", {"is_flag": True, "is_eager": True}),
    (("-b", "--broker"), ("UMBEL_BROKER", "BROKER_URL", "CELERY_BROKER"), export("CELERY_BROKER_URL"),
     "The broker, instead of the app's broker_url.", {"metavar": "URL"}),
    (("--result-backend",), ("RESULT_BACKEND", "CELERY_RESULT_BACKEND"), export("CELERY_RESULT_BACKEND"),
     "The result backend, instead of the app's.", {"metavar": "URL"}),
    (("--loader",), ("LOADER", "CELERY_LOADER"), export("CELERY_LOADER"),
     "Accepted without effect.", {"metavar": "NAME"}),
    (("--config",), ("CONFIG_MODULE", "CELERY_CONFIG"), export("CELERY_CONFIG_MODULE"),
     "Module with settings, when there is no -A.", {"metavar": "MODULE"}),
    (("--workdir",), ("UMBEL_WORKDIR", "CELERY_WORKDIR"), change_directory,
     "Folder to go to first.", {"type": click.Path(exists=True, file_okay=False), "is_eager": True}),
    (("-C", "--no-color"), (), note(NO_COLOR),
     "Print without colours; NO_COLOR in the environment does too.", {"is_flag": True}),
    (("-q", "--quiet"), (), note(QUIET),
     "Print no banner.", {"is_flag": True}),
    (("--skip-checks",), ("SKIP_CHECKS", "UMBEL_SKIP_CHECKS", "CELERY_SKIP_CHECKS"), export("CELERY_SKIP_CHECKS"),
     "Leave out Django's system checks.", {"is_flag": True}),
)  # fmt: skip


def global_options(*, repeated: bool) -> list[click.Option]:
    """Make the options.

    Args:
        repeated: for the place behind a command: hidden, and without variables of the environment.
    """
    made = []
    for names, variables, callback, text, more in ROWS:
        hidden: dict[str, Any] = {"hidden": True} if repeated else {"envvar": list(variables)}
        made.append(click.Option([*names], callback=callback, help=text, expose_value=False, **hidden, **more))
    return made
