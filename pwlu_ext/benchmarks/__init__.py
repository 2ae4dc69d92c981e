"""Measure the operator and inspect its kernels: `python -m pwlu_ext.benchmarks.NAME` from the root."""
