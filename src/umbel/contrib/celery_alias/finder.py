"""The import hook: `import celery.x` gives what `names` says, when it is asked for and not before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from umbel.contrib.celery_alias.names import ABSENT, BY_KOMBU, COMPANIONS, MADE, SAME, WHY
from umbel.later import IN_PACKAGE

__all__ = ["AliasFinder", "Made", "missing", "sources"]


def sources(name: str) -> dict[str, tuple[str, str]]:
    """Return the names of a module of `MADE`: of each, the module of umbel, and its name there."""
    found = {}
    for line in MADE.get(name, ()):
        module, _, names = line.partition(": ")
        for each in names.split():
            alias, _, original = each.partition("=")
            found[alias] = (module, original or alias)
    return found


def children(name: str) -> Iterator[str]:
    """Yield the names of the modules in the package *name*."""
    for module in (*SAME, *MADE):
        parent, _, child = module.rpartition(".")
        if parent == name:
            yield child


def reason(module: str, name: str = "") -> str | None:
    """Say why a name, or its module, or a package around that, is not there; None if nobody has thought of it."""
    if found := ABSENT.get(f"{module}:{name}"):
        return found
    if module == "celery" and name in IN_PACKAGE:
        return IN_PACKAGE[name]
    full = f"{module}.{name}" if name else module
    while full and not (found := ABSENT.get(full) or WHY.get(full)):
        full = full.rpartition(".")[0]
    return found


def missing(module: str, name: str = "") -> str:
    """Say that a module, or a name in it, is not there, and what to do."""
    full = f"{module}.{name}" if name else module
    why = reason(module, name)
    if why is not None:
        return f"umbel, which stands for Celery here, has no {full} in this version. {why}"
    if module.partition(".")[0] in COMPANIONS:
        return f"umbel, which stands for Celery here, has no {full}. {BY_KOMBU}"
    return f"umbel, which stands for Celery here, has no {full}. docs/how-to/run-celery-code.md lists what it has."


class Made(ModuleType):
    """A module of names that umbel has in several others; each is looked up when it is first used."""

    def __getattr__(self, name: str) -> Any:
        """Look a name up.

        Raises:
            AttributeError: there is none.
        """
        if name == "__all__":  # what `from … import *` takes: what there is
            return [each for each in sources(self.__name__) if hasattr(self, each)]
        found = sources(self.__name__).get(name)
        if found is None and (name.startswith("__") or name not in set(children(self.__name__))):
            raise AttributeError(missing(self.__name__, name), name=name, obj=self)
        try:
            if found is None:
                return importlib.import_module(f"{self.__name__}.{name}")
            value = getattr(importlib.import_module(found[0]), found[1])
        except (ImportError, AttributeError) as exc:  # of one that is not built: an AttributeError lets hasattr() answer
            raise AttributeError(missing(self.__name__, name), name=name, obj=self) from exc
        vars(self)[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *sources(self.__name__), *children(self.__name__)})


class SameLoader(Loader):
    """Gives a module of umbel under another name, and leaves it as it is."""

    def __init__(self, original: str) -> None:
        self.original = original

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import it.

        Raises:
            ImportError: it is not built.
        """
        try:
            module = importlib.import_module(self.original)
        except ModuleNotFoundError as exc:
            if exc.name != self.original:
                raise
            raise ImportError(missing(spec.name), name=spec.name) from exc
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Put back what the import system has written over: its own spec, by which the module can be reloaded and is known."""
        module.__spec__ = self._spec

    def get_code(self, _: str) -> CodeType | None:
        """Return the code, for `python -m`."""
        spec = importlib.util.find_spec(self.original)
        code: CodeType | None = spec.loader.get_code(self.original) if spec and spec.loader else None  # type: ignore[attr-defined]
        return code


class MadeLoader(Loader):
    """Makes a module of `MADE`."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make it empty."""
        return Made(spec.name, f"Names of Celery's {spec.name}, of umbel.")

    def exec_module(self, module: ModuleType) -> None:
        """Fill in what the import system would not ask `__getattr__` for."""
        for name, (source, original) in sources(module.__name__).items():
            if name.startswith("__"):
                vars(module)[name] = getattr(importlib.import_module(source), original)


class AliasFinder(MetaPathFinder):
    """Finds `celery` and what is in it, and *roots* beside it."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = frozenset(roots)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module.

        Raises:
            ImportError: Celery has it, or may have it, and umbel has not. It is not left to others: they would take a real Celery.
        """
        del path, target
        if fullname.partition(".")[0] not in self.roots:
            return None
        if fullname in SAME:
            original = SAME[fullname]
            package = any(True for _ in children(fullname))
            return ModuleSpec(fullname, SameLoader(original), origin=original, is_package=package)
        if fullname in MADE:
            return ModuleSpec(fullname, MadeLoader(), origin="umbel.contrib.celery_alias", is_package=True)
        module, _, name = fullname.rpartition(".")
        # No ModuleNotFoundError: of that, `from celery import x` would drop the text.
        raise ImportError(missing(module, name), name=fullname)

    def installed(self) -> bool:
        """Answer whether it is in use."""
        return any(finder is self for finder in sys.meta_path)
