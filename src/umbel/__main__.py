"""`python -m umbel` is the same as `umbel`."""

import sys

from umbel.cli import main

if __name__ == "__main__":
    sys.exit(main())
