"""Tasks for tests."""

from umbel.shared import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Say that a worker is there."""
    return "pong"
