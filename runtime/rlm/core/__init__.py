"""Errors, and the type of a result."""
