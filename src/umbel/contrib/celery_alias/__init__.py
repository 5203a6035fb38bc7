"""The alias under which code that was written for Celery finds umbel: `import celery` and its modules are umbel's very objects.

`umbel.install_as_celery()` installs it, in a project before anything imports `celery`; `python -m umbel.contrib.celery_alias` runs any
program under it. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Final

from umbel.contrib.celery_alias.distribution import AliasDistributions
from umbel.contrib.celery_alias.finder import AliasFinder, Made
from umbel.contrib.celery_alias.names import COMPANIONS, MADE, SAME

__all__ = ["install", "modules"]

ADVICE: Final = "Call umbel.install_as_celery() earlier: first in manage.py, in the package of your project or in conftest.py"


def install(*, companions: bool = True, distribution: bool = False) -> None:
    """Install the alias in this process; a second call does nothing more.

    Args:
        companions: also for the few names of kombu and billiard that code of tasks needs, whether these are installed or not.
        distribution: also answer `importlib.metadata` that Celery is installed, for tools that ask.

    Raises:
        RuntimeError: Celery itself, or kombu or billiard, is imported already.
    """
    roots = ("celery", *COMPANIONS) if companions else ("celery",)
    here = next((finder for finder in sys.meta_path if isinstance(finder, AliasFinder)), None)
    for root in roots:
        _refuse_if_real(root, sys.modules.get(root))
    if here is None:
        sys.meta_path.insert(0, AliasFinder(roots))
    else:
        here.roots |= frozenset(roots)
    if distribution and not any(isinstance(finder, AliasDistributions) for finder in sys.meta_path):
        sys.meta_path.insert(0, AliasDistributions())
    importlib.invalidate_caches()


def _refuse_if_real(root: str, module: ModuleType | None) -> None:
    """Refuse to hide a package that others hold already: there would be two of each class."""
    if module is None or isinstance(module, Made):
        return
    if root == "celery":
        raise RuntimeError(f"Celery itself is imported already, from {getattr(module, '__file__', '?')}. {ADVICE}.")
    raise RuntimeError(
        f"{root} itself is imported already, from {getattr(module, '__file__', '?')}. {ADVICE}, or leave {root} as it is with "
        "umbel.install_as_celery(companions=False): then its exceptions are not those that umbel raises."
    )


def modules() -> list[str]:
    """Return the modules of umbel that the alias may import, for tools that freeze a program and look for imports in its text."""
    made = {line.partition(": ")[0] for lines in MADE.values() for line in lines}
    return sorted({*SAME.values(), *made})
