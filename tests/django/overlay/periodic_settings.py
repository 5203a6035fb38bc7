"""The example's settings, with Django's admin and the table of periodic tasks."""

import os
import runpy
from pathlib import Path
from urllib.parse import urlsplit

# Not imported: the package reads the settings, which would be half made then.
_site = runpy.run_path(str(Path(__file__).parent / "mysite" / "settings.py"))
globals().update({name: value for name, value in _site.items() if name.isupper()})

INSTALLED_APPS = [
    *_site["INSTALLED_APPS"], "django.contrib.admin", "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles",
    "umbel.contrib.django.periodic",
]  # fmt: skip
MIDDLEWARE = [
    *_site["MIDDLEWARE"], "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.locale.LocaleMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
]  # fmt: skip
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]  # fmt: skip
ROOT_URLCONF = "periodic_urls"
STATIC_URL = "static/"

if os.environ.get("SITE_DATABASE"):
    _parts = urlsplit(os.environ["SITE_DATABASE"])
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": _parts.path.lstrip("/"), "HOST": _parts.hostname, "PORT": _parts.port,
            "USER": _parts.username or "postgres", "PASSWORD": _parts.password or "",
        }
    }  # fmt: skip
