"""All that training changes: the parameters, what the optimizer remembers of them, and the step's number."""

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
    """Parameters and slots as variables, which are updated in place, and how many steps have been taken.

    Attributes:
        params: w1, b1, w2, b2, ...
        slots: what the optimizer remembers: by the name of the slot, a variable of each parameter's shape.
        global_step: the number of the next step in the run, from 0; int64 [] within a compiled function.
        seed: of the run, int64 [], from 0 to 2**32 - 1: with the step's number it decides what is random.
    """

    params: Params
    slots: dict[str, Slot] = field(default_factory=dict)
    global_step: int | tf.Tensor = 0
    seed: tf.Tensor | int = 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all values: w1, b1, ..., and of a slot `velocity/w1`, ..."""
        found = {name: param.numpy() for name, param in self.params.items()}
        for slot, of_params in self.slots.items():
            found |= {f"{slot}/{name}": variable.numpy() for name, variable in of_params.items()}
        return found

    def set(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Assigns arrays to the variables of their names; other variables keep their values."""
        for name, param in self.params.items():
            param.assign(arrays.get(name, param))
        for slot, of_params in self.slots.items():
            for name, variable in of_params.items():
                variable.assign(arrays.get(f"{slot}/{name}", variable))


def initial(params: Params, optimizer: Optimizer, seed: int = 0) -> State:
    """The state before the first step.

    Args:
        params: as from `init_params`; not copied.
        optimizer: whose slots begin with zeros.
        seed: from 0 to 2**32 - 1.
    """
    return State(params, optimizers.empty_slots(optimizer, params), 0, tf.constant(seed, tf.int64))


def restored(
    arrays: Mapping[str, NDArray[Any]],
    layer_sizes: Sequence[int],
    optimizer: Optimizer,
    global_step: int = 0,
    seed: int = 0,
) -> State:
    """The state that `State.arrays` describes; a slot that the arrays lack begins with zeros.

    Args:
        arrays: as from `State.arrays`; others are ignored.
        layer_sizes: from the input's width to the number of classes.
        optimizer: of the run.
        global_step: how many steps have been taken.
        seed: from 0 to 2**32 - 1.
    """
    params = network.as_params({name: arrays[name] for name in network.names(layer_sizes)})
    state = initial(params, optimizer, seed)
    state.set(arrays)
    state.global_step = global_step
    return state
