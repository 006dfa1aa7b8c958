"""What lies in a run's directory: journal, checkpoints, the run record, the lock."""
