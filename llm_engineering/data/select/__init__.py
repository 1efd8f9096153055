"""Selecting: which rows are trained, which are held out, and which are neither."""
