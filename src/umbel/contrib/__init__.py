"""Integrations with frameworks and tools."""
