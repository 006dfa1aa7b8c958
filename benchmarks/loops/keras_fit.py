"""Keras `fit` on arrays.

Source: the guides "Training & evaluation with the built-in methods" and "Better performance" of Keras; the
arguments `jit_compile` and `steps_per_execution` of `Model.compile`.
"""

from typing import Any

import numpy as np

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("Keras fit", "Keras fit, jit_compile", "Keras fit, jit_compile, steps_per_execution=469")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    import keras

    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.set_weights(start)
    model.compile(
        optimizer=keras.optimizers.SGD(LR),
        loss="mean_squared_error",
        jit_compile="jit_compile" in variant,
        steps_per_execution=469 if "steps_per_execution" in variant else 1,
    )
    images, labels = x.reshape(-1, 784).astype(np.float32) / 255, keras.utils.to_categorical(y, 10)

    def epoch() -> None:
        model.fit(images, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)

    return epoch, model.get_weights
