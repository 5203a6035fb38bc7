"""Django: nothing to install. An app turns it on by itself where DJANGO_SETTINGS_MODULE is set."""
