"""The mathematics, one concept a file: the network, losses, optimizers, random numbers."""
