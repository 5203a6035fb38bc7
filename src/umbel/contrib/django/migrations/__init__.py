"""Django's view of the driver's own migrations: one of each name and number."""
