"""The work of pools.py, the same for umbel and for the bare pools; a record is made at the end of each."""

import asyncio
import os
import time

import ledger

WAIT, SLEEP = 0.1, 0.01  # seconds
TURNS = int(os.environ.get("BENCH_TURNS", "0"))  # of the loop that makes 2 ms of work; the benchmark finds out how many


async def wait(number):
    await asyncio.sleep(WAIT)
    ledger.note(number)


def sleep(number):
    time.sleep(SLEEP)
    ledger.note(number)


def compute(number):
    turn(TURNS)
    ledger.note(number)


def turn(turns):
    """Pure Python, the same number of steps each time."""
    value = 0
    for step in range(turns):
        value = (value * 31 + step) & 0xFFFF
    return value
