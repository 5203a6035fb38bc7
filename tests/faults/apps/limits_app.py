"""Tasks that take too long, each in its own way."""

import asyncio
import ctypes
import os
import time

from ledger_app import app, dies, early, note, work  # noqa: F401 - producers take them from here

from umbel.exceptions import SoftTimeLimitExceeded
from umbel.signals import task_failure


@app.task
def naps(number: int, seconds: float, *, step: float = 60) -> str:
    """Cleans up when it is told to."""
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(step, seconds))
    except SoftTimeLimitExceeded:
        note(f"cleans up {number}")
        return "cleaned"
    return "slept"


@app.task
async def naps_async(number: int, seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)  # its loop still works for it
        note(f"cleans up {number}")
        return "cleaned"
    return "slept"


@app.task
def runs_on(number: int) -> None:
    """Listens to its soft limit no more than most."""
    note(f"starts {number}")
    while True:
        time.sleep(0.01)


@app.task
async def runs_on_async(number: int) -> None:
    note(f"starts {number}")
    await asyncio.Event().wait()


@app.task
async def runs_for(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task
async def ignores_its_end(number: int) -> None:
    note(f"starts {number}")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(f"ignores {number}")


@app.task
def blocks(number: int, seconds: int = 60) -> None:
    """Other threads may run, but this one is deaf."""
    note(f"starts {number}")
    ctypes.CDLL(None).sleep(seconds)
    note(f"wakes {number}")


@app.task
def holds(number: int, seconds: int = 60) -> None:
    """No other thread may run."""
    note(f"starts {number}")
    ctypes.PyDLL(None).sleep(seconds)


@app.task
async def holds_the_loop(number: int) -> None:
    note(f"starts {number}")
    ctypes.CDLL(None).sleep(60)


@app.task(bind=True, max_retries=2)
def tries_again(self, number: int) -> int:
    if self.request.retries:
        return self.request.retries
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded as exc:
        raise self.retry(exc=exc, countdown=0) from None


@app.task
def hangs_at(number: int, at: int) -> int:
    note(f"starts {number}")
    if number == at:
        ctypes.CDLL(None).sleep(60)
    note(f"{number}")
    return number


@app.task(bind=True)
def limits(self) -> list:
    return self.request.timelimit


@app.task
def which_process(number: int, seconds: float = 0.0, megabytes: int = 0) -> int:
    began, kept = time.monotonic(), bytearray(megabytes * 1_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    time.sleep(seconds)
    note(f"{number} {os.getpid()} {began} {time.monotonic()}")
    return os.getpid()


@task_failure.connect
def say(sender=None, exception=None, **_: object) -> None:
    note(f"failure {sender.name.rpartition('.')[2]} {exception}")
