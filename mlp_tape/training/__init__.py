"""The training step, the loop over epochs and blocks, the engines, batches, and evaluation."""
