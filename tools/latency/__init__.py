"""`python -m tools.latency` measures inference (Table 4) and the training step."""
