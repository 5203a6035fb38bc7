"""The command line: `umbel`, with the commands and options that Celery's users type."""

from umbel.cli.main import main

__all__ = ["main"]
