"""Settings of a site with a table of periodic tasks: that of umbel, or that of django-celery-beat."""

import os

SECRET_KEY = "only-for-the-benchmark"
INSTALLED_APPS = ["django.contrib.contenttypes", os.environ["BENCH_TABLE"]]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["BENCH_DATABASE"],
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
