"""Mathematics, one concept per module: the network, losses, optimizers, schedules, random numbers."""
