"""The example's settings, with the tests' own app; details by environment."""

import os

from mysite.settings import *  # noqa: F403
from mysite.settings import DATABASES, INSTALLED_APPS, MY_APPS

MY_APPS = [*MY_APPS, "probe"]
INSTALLED_APPS = [*INSTALLED_APPS, "probe"]
PROBE_COMPLAINS = bool(os.environ.get("PROBE_COMPLAINS"))

_age = os.environ.get("PROBE_CONN_MAX_AGE", "0")
DATABASES["default"]["CONN_MAX_AGE"] = None if _age == "None" else int(_age)
