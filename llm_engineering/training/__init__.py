"""Training: one training from start to end, by one process or by several ranks."""
