"""Data: reading rows, turning them into conversations, tokenizing, auditing, storing."""
