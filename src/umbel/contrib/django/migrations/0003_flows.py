"""The driver's migration of this name, where the project's database is the broker's or the result backend's."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]

from umbel.contrib.django.tables import carry_out


class Migration(migrations.Migration):  # type: ignore[misc]  # Django has no types
    """It does nothing elsewhere, and what `umbel migrate` has done is not done again."""

    dependencies: ClassVar = [("umbel", "0002_functions")]
    operations: ClassVar = [migrations.RunPython(carry_out(3), migrations.RunPython.noop)]
