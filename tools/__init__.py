"""Programs that read finished runs: `python -m tools.NAME` from the root of the repository."""
