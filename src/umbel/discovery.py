"""Finding the modules that define tasks."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from types import ModuleType

__all__ = ["find_related", "import_related"]


def import_related(packages: Iterable[str], related_name: str | None) -> list[ModuleType]:
    """Import `package.related_name` of each package that has it.

    Raises:
        ImportError: a module that exists failed to import something.
    """
    found = (find_related(package, related_name) for package in packages)
    return [module for module in found if module is not None]


def find_related(package: str, related_name: str | None) -> ModuleType | None:
    """Import one package, or for `package.apps.Config` the package, and its related module; None if it has none."""
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as exc:
        parent = package.rpartition(".")[0]
        if not parent or not (exc.name and (package == exc.name or package.startswith(exc.name + "."))):
            raise
        module, package = importlib.import_module(parent), parent
        if not hasattr(module, "__path__"):  # `package.apps.Config`: the module was `package.apps`
            package = package.rpartition(".")[0]
    if related_name is None:
        return module
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise  # the module is there, and something that it imports is not
        return None
