"""The faults' tasks, and what is told of those that were revoked."""

from faults_app import app, begins, begins_async, early, note, work  # noqa: F401 - producers take them from here

from umbel.signals import task_revoked


@task_revoked.connect
def say_revoked(*, request, terminated, signum, expired, **_: object) -> None:
    note(f"revoked {request.args[0]} terminated={terminated} signum={signum} expired={expired}")
