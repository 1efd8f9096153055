"""Data: ``prepare.py`` says what happens to it; each room below imports only those after it.

``select/``, ``objective_rows/``, ``tokens/``, ``rows/``; ``read/`` imports none of them.
"""
