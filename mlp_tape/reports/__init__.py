"""Plots, the description of a run in MLflow, and the files of a finished run."""
