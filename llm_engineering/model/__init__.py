"""Models: what a base model is, how an adapter of it is trained, and how both are measured."""
