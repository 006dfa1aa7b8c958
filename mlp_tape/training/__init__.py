"""The training step, the training loop, the engines, batches, and evaluation."""
