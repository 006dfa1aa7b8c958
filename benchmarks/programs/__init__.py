"""Programs with which the whole command is compared."""
