"""Sweeps: directory, jobs, monitor, summary, report and worker processes."""
