"""Serving a finished run's model to programs, by an engine that others keep."""
