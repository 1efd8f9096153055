"""Rows: what a row says, as a conversation or as a preference, and where it is kept."""
