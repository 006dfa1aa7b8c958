"""Files in the directory of a run: journal, checkpoints, histograms, run record, lock."""
