"""Writes docs/reference/settings.md from the table of settings: `python scripts/settings_reference.py`."""

from datetime import timedelta
from pathlib import Path

from umbel.settings_table import SETTINGS, Setting

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

HEAD = """# Settings

<!-- Written by scripts/settings_reference.py from src/umbel/settings_table.py; change it there. -->

Every setting has one lower-case name. Under `namespace="CELERY"`, as in Django settings, `task_acks_late` is
`CELERY_TASK_ACKS_LATE`; umbel's own settings may be written there as `UMBEL_...` too. The names that Celery used before
version 4 are read as well.

What counts, first to last:

1. for `broker_url`, `broker_read_url`, `broker_write_url` and `result_backend`: the environment variables
   `UMBEL_<NAME>` and `CELERY_<NAME>`;
2. what the program wrote: the arguments of the app and `app.conf.name = value`;
3. for all other settings: the environment variable `UMBEL_<NAME>`;
4. `app.add_defaults(...)`, the newest first;
5. the source given to `app.config_from_object(...)`;
6. the default below.

A value of another type than the one below raises `ImproperlyConfigured`. Unknown names are kept and can be read; one that
looks like a misspelt setting warns.

Defaults that differ from Celery's: `broker_url` has none and nothing is assumed, `task_acks_late` and
`task_reject_on_worker_lost` are `True`, `worker_prefetch_multiplier` is `None` (adaptive), and the classes named by
`beat_scheduler`, `worker_autoscaler` and `worker_consumer` are `None`.
"""

SECTIONS = (
    ("implemented", "In effect", "These do what their line says."),
    ("accepted", "Accepted without effect", "These may be set and change nothing, for the reason in their line."),
    ("later", "Not built yet", "These are known and checked, but what they ask for does not exist yet."),
)


def main() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Returns the text of the page."""
    return "\n".join([HEAD, *(section(*given) for given in SECTIONS)])


def section(status: str, title: str, sentence: str) -> str:
    """Returns one part of the page: the settings of one status, in the order of the table."""
    rows = [row(setting) for setting in SETTINGS.values() if setting.status == status]
    head = ["| setting | type | default | what for | old name |", "|---|---|---|---|---|"]
    return "\n".join([f"## {title}", "", sentence, "", *head, *rows, ""])


def row(setting: Setting) -> str:
    """Returns the line of one setting."""
    kinds = " or ".join(setting.type.replace("none", "None").split("|"))
    unit = f" ({setting.unit})" if setting.unit else ""
    old = f"`{setting.legacy}`" if setting.legacy else "umbel's own"
    return f"| `{setting.name}` | {kinds}{unit} | {default(setting)} | {setting.sentence} | {old} |"


def default(setting: Setting) -> str:
    """Returns the default as a reader writes it."""
    value = setting.default
    if isinstance(value, timedelta):
        return f"{value.days} day" if value == timedelta(days=1) else str(value)
    return f"`{value!r}`"


if __name__ == "__main__":
    main()
