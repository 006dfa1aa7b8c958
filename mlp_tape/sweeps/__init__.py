"""A sweep: its directory, jobs, monitor, summary, report and workers."""
