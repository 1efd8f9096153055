"""What the flags of tools/run.py do."""
