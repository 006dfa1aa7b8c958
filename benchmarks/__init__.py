"""Benchmarks of mlp_tape against other frameworks: `python -m benchmarks MNIST.npz`."""
