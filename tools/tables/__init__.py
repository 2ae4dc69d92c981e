"""The paper's tables and figures of improvements, filled from the records of runs."""
