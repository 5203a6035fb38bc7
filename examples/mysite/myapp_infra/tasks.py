import time

from django.conf import settings
from django.core.mail import send_mail
from umbel import shared_task


@shared_task
def send_email_task(subject, message, recipient_list):
    started = time.monotonic()
    print(f"Subject: {subject}")
    print(f"From: {settings.DEFAULT_FROM_EMAIL}")
    print(f"To: {', '.join(recipient_list)}")
    print(message)
    sent = send_mail(subject, message, None, recipient_list)
    print(f"{sent} mail sent in {time.monotonic() - started:.3f} s")


@shared_task
def add(x, y):
    return x + y


@shared_task
def boom():
    raise ValueError("kaput")


@shared_task(bind=True, max_retries=3)
def flaky(self, failures=1):
    """Fails as often as it is told, and is tried again one second later each time."""
    attempt = self.request.retries
    if attempt < failures:
        raise self.retry(exc=RuntimeError(f"attempt {attempt}"), countdown=1)
    return {"attempts": attempt + 1}
