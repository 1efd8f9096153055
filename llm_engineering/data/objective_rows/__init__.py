"""Objective rows: what a row is to each kind of objective, from reading to the prepared columns."""
