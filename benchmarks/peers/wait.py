"""Calls one at a time on an idle worker: python wait.py MODULE COUNT PAUSE.

Prints, per call, the time just before `delay()`, when it returned, and when `get()` had the result; the ledger has the start.
"""

import importlib
import json
import random
import sys
import time


def main():
    app, count, pause = importlib.import_module(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    app.noop.delay(-1).get(timeout=60)
    chance, calls = random.Random(7), []
    for number in range(count):
        time.sleep(pause * (0.5 + chance.random()))  # the worker is idle again; not in step with its polls
        asked = time.monotonic_ns()
        result = app.noop.delay(number)
        sent = time.monotonic_ns()
        result.get(timeout=30)
        calls.append((number, asked, sent, time.monotonic_ns()))
    print(json.dumps(calls))


main()
