"""The settings, their constraints, and the validation of what Hydra composes."""
