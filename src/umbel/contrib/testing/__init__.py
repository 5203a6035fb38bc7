"""What tests written for Celery use: apps, workers in a thread, messages. See docs/how-to/test-your-tasks.md."""
