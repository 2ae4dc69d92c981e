"""What a run records: lines of metrics, curves, the learned functions."""
