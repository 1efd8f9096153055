"""Tokens: what the model reads of a row, which of it is trained, and the audit of that."""
