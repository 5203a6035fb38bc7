"""What `importlib.metadata` is told of Celery under the alias, if it is asked for.

By default it is told nothing: what is installed is umbel. Some tools (OpenTelemetry's instrumentor) begin only if a distribution `celery`
is there; they get one that says that umbel is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, DistributionFinder
from os import PathLike
from typing import Any

import umbel
from umbel.contrib.celery_alias.extras import __version__ as celery_version

__all__ = ["AliasDistributions"]

METADATA = f"Metadata-Version: 2.1\nName: celery\nVersion: {celery_version}\nSummary: umbel {umbel.__version__}, under the name celery\n"


class AliasDistribution(Distribution):
    """The distribution `celery` that is umbel."""

    def read_text(self, filename: str) -> str | None:
        """Return the one file that it has."""
        return METADATA if filename == "METADATA" else None

    def locate_file(self, path: str | PathLike[str]) -> Any:
        """Refuse: there are no files.

        Raises:
            FileNotFoundError: always.
        """
        raise FileNotFoundError(f"{path}: umbel's distribution 'celery' has no files.")


class AliasDistributions(DistributionFinder):
    """Finds it."""

    def find_spec(self, *_: Any, **__: Any) -> None:
        """Find no modules."""

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """Yield it, if all are asked for, or it."""
        name = getattr(context, "name", None)
        if name is None or str(name).lower() == "celery":
            yield AliasDistribution()
