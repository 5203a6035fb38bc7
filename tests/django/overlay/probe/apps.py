"""An app of the tests' own, laid over the example project."""

from django.apps import AppConfig
from django.conf import settings
from django.core import checks


class ProbeConfig(AppConfig):
    name = "probe"

    def ready(self):
        checks.register(complain)


def complain(app_configs, **kwargs):
    if getattr(settings, "PROBE_COMPLAINS", False):
        return [checks.Error("the probe is not content", hint="give it what it wants", id="probe.E001")]
    return []
