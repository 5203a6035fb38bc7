"""Bytes to values and back: Celery's message protocol 2, in the very bytes that kombu reads and writes."""
