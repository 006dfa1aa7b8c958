"""Keras `fit` with a callback that logs each batch's loss to MLflow: `... keras_callback.py MNIST.npz`.

Source: the guide "Writing your own callbacks" of Keras; `mlflow.log_metric` of MLflow's tracking guide.
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import mlflow
import numpy as np

with np.load(sys.argv[1]) as archive:
    x, y = archive["x_train"], archive["y_train"]
    x_test, y_test = archive["x_test"], archive["y_test"]
x, x_test = x.reshape(-1, 784).astype(np.float32) / 255, x_test.reshape(-1, 784).astype(np.float32) / 255
y, y_test = keras.utils.to_categorical(y, 10), keras.utils.to_categorical(y_test, 10)


class LogEachBatch(keras.callbacks.Callback):
    """Logs the loss of every batch."""

    def on_train_begin(self, logs=None):
        """Initializes the step number, which counts over all epochs."""
        self.step = 0

    def on_train_batch_end(self, batch, logs=None):
        """Logs one value."""
        mlflow.log_metric("train/loss", float(logs["loss"]), step=self.step)
        self.step += 1


initial = keras.initializers.TruncatedNormal(stddev=0.1)
model = keras.Sequential(
    [
        keras.layers.Input((784,)),
        keras.layers.Dense(256, activation="relu", kernel_initializer=initial),
        keras.layers.Dense(128, activation="relu", kernel_initializer=initial),
        keras.layers.Dense(10, kernel_initializer=initial),
    ]
)
model.compile(optimizer=keras.optimizers.SGD(0.001), loss="mean_squared_error", metrics=["accuracy"])
with mlflow.start_run():
    model.fit(
        x,
        y,
        batch_size=128,
        epochs=10,
        shuffle=False,
        validation_data=(x_test, y_test),
        verbose=2,
        callbacks=[LogEachBatch()],
    )
