"""One run from top to bottom: the trainer, fit, early stopping, metadata, resuming, divergence."""
