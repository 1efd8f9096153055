"""Evaluation: held-out loss and accuracy, and sample answers before and after."""
