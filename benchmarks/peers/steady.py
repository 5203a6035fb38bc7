"""Sends calls in bulk, never more than some ahead of what has run: python steady.py COUNT AHEAD."""

import os
import sys
import time
from pathlib import Path

import umbel_app

STEP = 2_000
RECORD = 16  # bytes of the ledger for each task


def main():
    count, ahead = int(sys.argv[1]), int(sys.argv[2])
    ledger = Path(os.environ["BENCH_LEDGER"])
    for start in range(0, count, STEP):
        deadline = time.monotonic() + 60
        while start - (ledger.stat().st_size // RECORD if ledger.exists() else 0) > ahead:
            if time.monotonic() > deadline:
                sys.exit("the worker does not keep up")
            time.sleep(0.005)
        umbel_app.bulk(range(start, min(count, start + STEP)))


main()
