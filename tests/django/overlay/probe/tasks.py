import os
import threading

from asgiref.sync import sync_to_async
from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone, translation

from umbel import shared_task

_opened = []


def _count(sender, connection, **kwargs):
    _opened.append(connection.alias)


connection_created.connect(_count, dispatch_uid="probe")


def _use_database():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@shared_task
def use_database():
    """How many connections this process has opened so far, after one query."""
    _use_database()
    return {"opened": len(_opened), "pid": os.getpid(), "thread": threading.get_ident()}


@shared_task
async def use_database_from_a_coroutine():
    await sync_to_async(_use_database)()
    return {"opened": len(_opened), "pid": os.getpid()}


@shared_task
def language_and_zone():
    return [translation.get_language(), timezone.get_current_timezone_name()]


@shared_task
def leave_another_language():
    translation.activate("de")
    timezone.activate("Europe/Berlin")
