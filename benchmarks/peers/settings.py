"""What the benchmark hands to every app, by environment."""

import os

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/15")
KEEP = os.environ.get("BENCH_RESULTS", "off") == "on"  # are results stored?
