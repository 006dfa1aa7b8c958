"""The space of a search: the settings that it varies, and the values that each of them can have."""

import dataclasses
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

FLOAT, INT, CATEGORICAL = "float", "int", "categorical"


@dataclass(frozen=True)
class Parameter:
    """A setting that a search varies.

    Attributes:
        name: its key, such as `lr`, or the group whose option is chosen, such as `optimizer`.
        kind: `float`, `int` or `categorical`.
        low: smallest value of a number.
        high: largest value of a number.
        step: distance between two values; None for any value between `low` and `high`.
        log: whether the logarithm of the value is sampled uniformly.
        choices: values of a categorical parameter as they are recorded: numbers if all are, else what was
            typed.
        typed: the same values as they are typed on the command line.
        prefix: `+` or `++` if it is typed before the name.
    """

    name: str
    kind: str
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: list[Any] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    prefix: str = ""

    @property
    def size(self) -> int | None:
        """Number of values; None if there are infinitely many."""
        if self.kind == CATEGORICAL:
            return len(self.choices)
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def at(self, index: int) -> Any:
        """Returns the value with an index, from 0, of a parameter with a finite number of them."""
        if self.kind == CATEGORICAL:
            return self.choices[index]
        if self.kind == INT:
            return int(self.low + index * (self.step or 1))
        return float(Decimal(str(self.low)) + index * Decimal(str(self.step)))

    def override(self, value: Any) -> str:
        """Returns the override that sets the parameter to a value of its range."""
        if self.kind == CATEGORICAL:
            text = self.typed[self.choices.index(value)]
        elif self.step is not None:  # sampled as low + n * step, with an error of rounding
            text = repr(self.at(round((value - self.low) / self.step)))
        else:
            text = repr(value)
        return f"{self.prefix}{self.name}={text}"

    def ends(self) -> list[Any]:
        """Returns the smallest and the largest value of a number, or the choices."""
        if self.kind == CATEGORICAL:
            return self.choices
        return [int(self.low), int(self.high)] if self.kind == INT else [self.low, self.high]

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes for a JSON file."""
        return dataclasses.asdict(self)
