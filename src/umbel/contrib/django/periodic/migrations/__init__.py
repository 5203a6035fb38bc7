"""Tables of periodic tasks."""
