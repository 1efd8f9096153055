"""Lineage: what of a run ZenML stores, shows, and notices as changed."""
