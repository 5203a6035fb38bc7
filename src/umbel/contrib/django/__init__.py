"""Django: nothing to install. An app turns it on by itself where DJANGO_SETTINGS_MODULE is set.

In INSTALLED_APPS, it lets `manage.py migrate` make the tables of a broker that is in the project's own PostgreSQL database.
"""
