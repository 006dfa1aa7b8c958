"""The keys of the metrics by which runs are ranked and drawn."""

TRAIN_LOSS = "train/loss"
TEST_LOSS = "test/loss"
TEST_ACCURACY = "test/accuracy"
VALIDATION_ACCURACY = "validation/accuracy"
