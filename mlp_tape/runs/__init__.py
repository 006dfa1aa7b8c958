"""A single run: trainer, fit, early stopping, metadata, resuming, divergence, walkthrough."""
