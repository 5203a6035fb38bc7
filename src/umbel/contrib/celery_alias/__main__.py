"""Run a program under the alias: `python -m umbel.contrib.celery_alias -m celery -A mysite worker`, or with a script.

Programs of umbel that it starts are under it, too, by the variable UMBEL_AS_CELERY.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Final

from umbel.contrib.celery_alias import install

__all__ = ["main"]

USAGE: Final = "Usage: python -m umbel.contrib.celery_alias (-m MODULE | SCRIPT) [ARGUMENT]..."


def main() -> None:
    """Run what the words of the command line say, as Python itself would.

    Raises:
        SystemExit: they say nothing, or the program ends with it.
    """
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        print(USAGE)  # noqa: T201 - a program
        return
    if not words or words == ["-m"]:
        sys.exit(USAGE)
    install()
    os.environ["UMBEL_AS_CELERY"] = "1"
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
