"""The settings, their constraints, and the validation of the config that Hydra composes."""
