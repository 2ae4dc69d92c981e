"""A run in its folder: begin or go on, say how it ended."""
