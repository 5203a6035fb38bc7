"""Settings of the example. Everything that a demo or a test changes comes from the environment."""

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-the-example-never-for-a-real-site-0123456789abcdef")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

MY_APPS = ["accounts"]

# umbel is not in this list, and need not be.
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "myapp_infra",
    "myapp_system",
    *MY_APPS,
]

MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE_PATH", BASE_DIR / "db.sqlite3"),
        # Site and worker write to one file: a writer takes its turn at the start of the transaction, and waits for it.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "Asia/Shanghai"
USE_TZ = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}

# --- mail: into files, or to the SMTP server that EMAIL_HOST names

DEFAULT_FROM_EMAIL = "mysite@example.com"
if os.environ.get("EMAIL_HOST"):
    _mail_backend = "django.core.mail.backends.smtp.EmailBackend"
    _mail_options = {"host": os.environ["EMAIL_HOST"], "port": int(os.environ.get("EMAIL_PORT", "25"))}
else:
    _mail_backend = "django.core.mail.backends.filebased.EmailBackend"
    _mail_options = {"file_path": os.environ.get("MAIL_DIR", str(BASE_DIR / "mail"))}

if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": _mail_backend, "OPTIONS": _mail_options}}
else:
    EMAIL_BACKEND = _mail_backend
    EMAIL_HOST = _mail_options.get("host", "localhost")
    EMAIL_PORT = _mail_options.get("port", 25)
    EMAIL_FILE_PATH = _mail_options.get("file_path")

# --- tasks: names and values as a Celery project has them

_file = f"sqlite:///{BASE_DIR / 'umbel.sqlite3'}"
CELERY_BROKER_URL = os.environ.get("BROKER_URL") or _file
if CELERY_BROKER_URL.startswith("amqp"):  # RabbitMQ carries messages, and keeps neither results nor the list of revoked tasks
    CELERY_RESULT_BACKEND = CELERY_UMBEL_STATE_URL = os.environ.get("RESULT_URL") or _file
else:
    CELERY_RESULT_BACKEND = os.environ.get("RESULT_URL") or CELERY_BROKER_URL
if os.environ.get("KEY_PREFIX"):  # to share a Redis server with others
    CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": os.environ["KEY_PREFIX"]}
    CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"global_keyprefix": os.environ["KEY_PREFIX"]}

CELERY_TIMEZONE = "Asia/Shanghai"
CELERY_ENABLE_UTC = True
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
