"""Callbacks: what happens while a training goes on, one idea a file; ``training_callbacks`` in order."""
