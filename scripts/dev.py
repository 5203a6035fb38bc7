"""`make dev`: the example's site and worker, kept running with their logs in one terminal until Ctrl-C."""

import os
import sys
import time

from side_by_side import EXAMPLE, DemoError, SideBySide, free_port, leave_on_signals, say


def main() -> int:
    """Runs both sides in the example's own folder until one ends or Ctrl-C comes."""
    leave_on_signals()
    both = SideBySide(EXAMPLE, free_port(int(os.environ.get("PORT", "8000"))))
    try:
        with both:
            both.wait_until_ready(time.monotonic() + 60)
            say("demo", f"the site is at {both.url}; try, in another terminal:")
            say("demo", f"  curl -X POST '{both.url}/api/login/' -d username=li")
            say("demo", f"  curl '{both.url}/api/add/?x=2&y=3'")
            say("demo", "Ctrl-C stops both")
            wait_for_an_end(both)
    except DemoError as error:
        say("demo", f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo", "both sides are stopped")
        return 0
    return 1


def wait_for_an_end(both: SideBySide) -> None:
    """Returns when one of the two is gone; Ctrl-C leaves by its exception."""
    while True:
        time.sleep(0.5)
        for side in both.sides:
            if side.gone():
                say("demo", f"{side.name} ended with {side.process.returncode}, so the other is stopped too")
                return


if __name__ == "__main__":
    sys.exit(main())
