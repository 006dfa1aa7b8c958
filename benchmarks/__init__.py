"""What mlp_tape costs beside its peers: `python -m benchmarks MNIST.npz`."""
