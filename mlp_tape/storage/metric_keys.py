"""The keys of the metrics by which runs are ranked and drawn."""

TRAIN_LOSS = "train/loss"
TEST_LOSS = "test/loss"
TEST_ACCURACY = "test/accuracy"
VALIDATION_ACCURACY = "validation/accuracy"
# Of a split with rare classes, after `test/` or `validation/`; attributes of `classification.ByClass`
OF_CLASSES = ("balanced_accuracy", "macro_f1", "majority_accuracy")


def best_key(key: str) -> str:
    """Returns the key of a metric of the best weights so far, such as `validation/best_accuracy`."""
    split, _, name = key.partition("/")
    return f"{split}/best_{name}"
