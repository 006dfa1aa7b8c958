"""A search with Optuna over a Keras loop, pruned: `... keras_search.py MNIST.npz SEED SECONDS`.

Space, epochs, initial weights and validation images are those of `benchmarks/search.py`. For each trial, a
line of JSON is printed: when it ended, its validation accuracy, and after how many epochs it was pruned.

Source: the guide "Writing your own callbacks" of Keras; `Trial.report` and `should_prune` of Optuna's
tutorial on pruning.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import optuna

from mlp_tape.data import datasets

EPOCHS = 10
HIDDEN_SIZES = {"128": [128], "256-128": [256, 128], "512-256": [512, 256]}

data = datasets.with_validation(datasets.load("mnist", sys.argv[1]), 0.1, 0)  # dataset.split_seed=0
x, x_validation = (
    images.reshape(-1, 784).astype(np.float32) / 255 for images in (data.x_train, data.x_validation)
)
y, y_validation = data.y_train, data.y_validation


class Pruning(keras.callbacks.Callback):
    """Reports the validation accuracy at each epoch's end, and ends a trial that Optuna prunes."""

    def __init__(self, trial):
        """Stores the trial."""
        super().__init__()
        self.trial = trial

    def on_epoch_end(self, epoch, logs=None):
        """Reports the validation accuracy; a trial is not pruned after its last epoch."""
        self.trial.report(logs["val_accuracy"], epoch)
        if self.trial.should_prune() and epoch + 1 < EPOCHS:
            raise optuna.TrialPruned


def objective(trial):
    """Trains a network, and returns its validation accuracy."""
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    batch_size = trial.suggest_categorical("batch_size", [64, 128, 256])
    hidden_sizes = HIDDEN_SIZES[trial.suggest_categorical("hidden_sizes", list(HIDDEN_SIZES))]
    dropout = trial.suggest_float("dropout", 0, 0.4)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((784,))]
    for width in hidden_sizes:
        initial = keras.initializers.TruncatedNormal(stddev=0.1)
        layers.append(keras.layers.Dense(width, activation="relu", kernel_initializer=initial))
        layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(10, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.1)))
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=EPOCHS,
        shuffle=True,
        validation_data=(x_validation, y_validation),
        callbacks=[Pruning(trial)],
        verbose=0,
    )
    return history.history["val_accuracy"][-1]


def show(study, trial):
    """Prints a trial that has ended."""
    pruned = len(trial.intermediate_values) if trial.state == optuna.trial.TrialState.PRUNED else 0
    ended = {"ended": time.time(), "accuracy": trial.value, "pruned": pruned}
    print(json.dumps(ended), flush=True)


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=int(sys.argv[2])),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=EPOCHS // 3, interval_steps=1),
)
study.optimize(objective, timeout=float(sys.argv[3]), callbacks=[show])
