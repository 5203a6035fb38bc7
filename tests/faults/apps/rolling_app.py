"""One project at two versions: a worker of version 1 does not know the task of version 2, and the other way round."""

import os
import time

from ledger_app import app, note

VERSION = os.environ.get("ROLLING_VERSION", "")


def ran(number: int, seconds: float) -> None:
    time.sleep(seconds)
    note(f"{number}")


@app.task(name="rolling.both")
def both(number: int, seconds: float = 0.0) -> None:
    ran(number, seconds)


if VERSION != "2":

    @app.task(name="rolling.old")
    def old(number: int, seconds: float = 0.0) -> None:
        ran(number, seconds)


if VERSION != "1":

    @app.task(name="rolling.new")
    def new(number: int, seconds: float = 0.0) -> None:
        ran(number, seconds)
