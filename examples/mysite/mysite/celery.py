import os

from django.conf import settings
from umbel import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["myapp_infra", "myapp_system"] + settings.MY_APPS, force=True)  # noqa: RUF005  (as the user wrote it)
