"""Sends the calls of fairness.py: their lengths in seconds come by standard input, with commas. It prints when the last one is sent."""

import sys
import time

from fairness_app import app, work


def main():
    calls = [(number, float(seconds)) for number, seconds in enumerate(sys.stdin.read().split(","))]
    if hasattr(work, "delay_many"):
        work.delay_many((call, {}) for call in calls)
    else:
        for call in calls:
            work.delay(*call)
    print(time.monotonic_ns())
    app.close()


main()
