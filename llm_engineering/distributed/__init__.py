"""Several GPUs: what a rank knows, and what sharing a step or the weights asks of it."""
