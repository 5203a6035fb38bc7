"""The worker: a parent that claims, settles and renews, and pools that run tasks."""
