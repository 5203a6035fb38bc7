"""The app of Django: in INSTALLED_APPS, `manage.py migrate` makes the tables of a broker or result backend in the project's database."""

from __future__ import annotations

from django.apps import AppConfig  # type: ignore[import-untyped]

__all__ = ["UmbelConfig"]


class UmbelConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """`umbel.contrib.django`."""

    name = "umbel.contrib.django"
    label = "umbel"
    verbose_name = "umbel"
