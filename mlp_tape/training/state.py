"""All that training changes: the parameters, and what the optimizer remembers of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlp_tape.data.sources import Array
from mlp_tape.tensors import network, optimizers
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import Optimizer, Slot


class State(NamedTuple):
    """Parameters and slots, as variables.

    Attributes:
        params: w1, b1, w2, b2, ...
        slots: by the name of the slot, that of each parameter.
    """

    params: Params
    slots: dict[str, Slot]

    def arrays(self) -> dict[str, Array]:
        """Copies of all values: w1, b1, ..., and of a slot `velocity/w1`, ..."""
        found = {name: param.numpy() for name, param in self.params.items()}
        for slot, of_params in self.slots.items():
            found |= {f"{slot}/{name}": variable.numpy() for name, variable in of_params.items()}
        return found

    def set(self, arrays: Mapping[str, Array]) -> None:
        """Gives variables the values of arrays of their names; others stay."""
        for name, param in self.params.items():
            param.assign(arrays.get(name, param))
        for slot, of_params in self.slots.items():
            for name, variable in of_params.items():
                variable.assign(arrays.get(f"{slot}/{name}", variable))


def of(arrays: Mapping[str, Array], layer_sizes: Sequence[int], rule: Optimizer) -> State:
    """Makes the state of arrays, which may hold more; slots that they do not hold begin with zeros."""
    params = network.as_params({name: arrays[name] for name in network.names(layer_sizes)})
    made = State(params, optimizers.empty_slots(rule, params))
    made.set(arrays)
    return made
