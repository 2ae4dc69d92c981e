"""The paper's numbers and the grids of its tables."""
