"""Replacing a model's activations in place (section 4.1)."""
