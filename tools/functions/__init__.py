"""Looks into learned functions: Figures 6 and 7, their shapes and gradients."""
