"""Measure the operator: `python -m pwlu_ext.benchmarks.NAME` from the root."""
