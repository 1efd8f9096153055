"""Scheduled retraining: the clock that calls, what one call does, and what it leaves behind."""
