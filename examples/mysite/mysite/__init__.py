# So that @shared_task finds the app as soon as Django starts.
from .celery import app as celery_app

__all__ = ("celery_app",)
