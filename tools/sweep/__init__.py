"""`python -m tools.sweep` makes the runs of a table or study."""
