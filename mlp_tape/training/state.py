"""The training state: parameters, optimizer slots, and the step number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.tensors import network, optimizers
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import Optimizer, Slot


@dataclass
class State:
    """Everything that training changes: parameters and slots, updated in place, and the step number.

    Attributes:
        params: w1, b1, w2, b2, ...
        slots: optimizer state: for each slot name, a variable of each parameter's shape.
        global_step: number of the next step in the run, from 0; int64 [] within a compiled function.
        seed: seed of the run, int64 [], from 0 to 2**32 - 1; with the step number, it determines the random
            numbers of a step.
    """

    params: Params
    slots: dict[str, Slot] = field(default_factory=dict)
    global_step: int | tf.Tensor = 0
    seed: tf.Tensor | int = 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns copies of all values: parameters as w1, b1, ..., and slots as `velocity/w1`, ..."""
        found = {name: param.numpy() for name, param in self.params.items()}
        for slot, of_params in self.slots.items():
            found |= {f"{slot}/{name}": variable.numpy() for name, variable in of_params.items()}
        return found

    def set(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Assigns arrays to the variables of the same names; other variables keep their values."""
        for name, param in self.params.items():
            param.assign(arrays.get(name, param))
        for slot, of_params in self.slots.items():
            for name, variable in of_params.items():
                variable.assign(arrays.get(f"{slot}/{name}", variable))


def initial(params: Params, optimizer: Optimizer, seed: int = 0) -> State:
    """Returns the state before the first step.

    Args:
        params: parameters as returned by `init_params`; not copied.
        optimizer: its slots are initialized with zeros.
        seed: seed of the run, from 0 to 2**32 - 1.
    """
    return State(params, optimizers.empty_slots(optimizer, params), 0, tf.constant(seed, tf.int64))


def restored(
    arrays: Mapping[str, NDArray[Any]],
    layer_sizes: Sequence[int],
    optimizer: Optimizer,
    global_step: int = 0,
    seed: int = 0,
) -> State:
    """Returns the state saved by `State.arrays`; missing slots are initialized with zeros.

    Args:
        arrays: arrays as returned by `State.arrays`; additional ones are ignored.
        layer_sizes: width of each layer, from the input to the number of classes.
        optimizer: optimizer of the run.
        global_step: number of steps completed.
        seed: seed of the run, from 0 to 2**32 - 1.
    """
    params = network.as_params({name: arrays[name] for name in network.names(layer_sizes)})
    state = initial(params, optimizer, seed)
    state.set(arrays)
    state.global_step = global_step
    return state
