"""Send a chord: python chord_send.py COUNT. Prints how long that took, and by how much the memory of this process grew."""

import json
import sys
import time
from pathlib import Path

import chord_app


def most_memory():
    """The most that this process has had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


chord_app.send(3).get(timeout=60)  # connections are there, and what is needed is imported
before, began = most_memory(), time.perf_counter()
result = chord_app.send(int(sys.argv[1]))
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "megabytes": most_memory() - before, "members": len(result.parent or ())}))
