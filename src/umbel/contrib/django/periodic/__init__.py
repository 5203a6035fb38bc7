"""Periodic tasks in a table of the project's database, edited in Django's admin: `"umbel.contrib.django.periodic"` in INSTALLED_APPS.

The table is the truth, and the scheduler reads it (`store.py`, `following.py`); what was sent stays in the store of schedules.
"""
