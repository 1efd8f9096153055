"""Export: what leaves a run beside the adapter, and the proof that it is what was trained."""
