"""Plots, the description of a run, and the files that a run leaves."""
