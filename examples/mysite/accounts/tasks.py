from django.contrib.auth import get_user_model
from umbel import shared_task


@shared_task
def count_users():
    return get_user_model().objects.count()
