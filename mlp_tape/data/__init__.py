"""Sources of data sets, and data sets prepared for training."""
