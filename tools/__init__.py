"""Programs that make sweeps of runs, and tables and figures of them: `python -m tools.NAME` from the root."""
