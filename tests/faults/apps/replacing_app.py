"""Tasks that put another workflow in their place, or another member into their chord, when a file is there."""

import asyncio
import time
from pathlib import Path

from ledger_app import app, note, work

from umbel import chord, group


@app.task
def total(numbers: list[int]) -> int:
    note(f"total {sorted(numbers)}")
    return sum(numbers)


def wait_for_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


@app.task(bind=True)
def unfolds(self, path: str, first: int) -> None:
    note("begins")
    wait_for_file(path)
    raise self.replace(group(work.s(first), work.s(first + 1)) | total.s())


@app.task(bind=True)
async def unfolds_in_a_loop(self, path: str, first: int) -> None:
    note("begins")
    await asyncio.to_thread(wait_for_file, path)
    raise self.replace(group(work.s(first), work.s(first + 1)) | total.s())


@app.task(bind=True)
def joins(self, path: str, first: int) -> int:
    note("begins")
    wait_for_file(path)
    self.add_to_chord(work.s(first + 1))
    return first


def chord_of(path: str) -> chord:
    return chord([joins.s(path, 1)], total.s())
