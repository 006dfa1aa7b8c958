"""The metrics by which the jobs of a sweep can be chosen, and which of their values are better."""

OF_SPLIT = {
    "accuracy": "maximize",
    "loss": "minimize",
    "balanced_accuracy": "maximize",
    "macro_f1": "maximize",
}
# `parameters` is the number of weights and biases, `seconds` the duration of the training.
METRICS = {
    **{f"validation/{name}": better for name, better in OF_SPLIT.items()},
    **{f"test/{name}": better for name, better in OF_SPLIT.items()},
    "seconds": "minimize",
    "parameters": "minimize",
}

MONITOR = "accuracy"  # metric by which the best weights of a run are chosen, if its settings do not say it


def direction(metric: str) -> str:
    """Returns `maximize` if higher values of a metric are better, else `minimize`."""
    return METRICS[metric]


def is_of_test(metric: str) -> bool:
    """Returns whether a metric is measured on the test images, so that choosing by it makes it optimistic."""
    return metric.startswith("test/")
