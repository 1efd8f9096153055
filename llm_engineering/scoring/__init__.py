"""Scoring: how good an answer is, by its text alone; what needs the model is elsewhere."""
