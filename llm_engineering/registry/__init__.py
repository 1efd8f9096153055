"""The registry: every saved adapter is a version of a ZenML model; a gate promotes the better."""
