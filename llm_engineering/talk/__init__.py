"""Talking to a finished run's model: finding it, loading it as anyone would, asking it."""
