"""What a place has recorded of a run, and how the values of another run differ from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mlp_tape.storage.checksums import Checksums
from mlp_tape.storage.journal import Row
from mlp_tape.system.formatting import count

# The parts of a step in order of computation, by the beginnings of the keys that measure them.
PARTS = (
    (("params/",), "the parameters before the step"),
    (("train/lr",), "the learning rate"),
    (("train/loss",), "the loss"),
    (("grads/",), "the gradients"),
    (("updates/",), "the updates"),
    (("validation/", "test/", "units/"), "the evaluation after the step"),
)
MEASURED = tuple(prefix for prefixes, _ in PARTS for prefix in prefixes)
RESULTS = ("test/", "validation/")


@dataclass(frozen=True)
class Evidence:
    """What a place has recorded of a run.

    Attributes:
        place: name of the place, such as `MLflow`.
        rows: value of each metric row, by key and step.
        checksums: SHA-256 of the parameters, by number of steps.
        is_complete: whether the run was recorded to its end, so that no row may be missing.
    """

    place: str
    rows: Mapping[str, Mapping[int, float]]
    checksums: Mapping[int, Checksums]
    is_complete: bool = True


@dataclass(frozen=True)
class Difference:
    """A value that is not the recorded one.

    Attributes:
        place: place where the other value is recorded.
        what: metric key, or names of parameters.
        step: step of the row, or number of steps before the weights.
        text: description of both values.
    """

    place: str
    what: str
    step: int
    text: str


@dataclass
class ComparedPlace:
    """A place, and what was found about it so far.

    Attributes:
        evidence: what the place has recorded.
        differences: the first differences.
        earliest: the step of the earliest difference, also of one that is not kept; None if there is none.
        n_compared: number of values that were compared.
        pairs: step, recorded value and value here of each compared row, by key.
        is_broken: whether a row is missing, there or here.
    """

    evidence: Evidence
    differences: list[Difference] = field(default_factory=list)
    earliest: int | None = None
    n_compared: int = 0
    pairs: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    is_broken: bool = False

    def compared(self, row: Row) -> str:
        """Compares a row; returns how it differs, empty if it does not."""
        recorded = self.evidence.rows.get(row.key, {})
        if row.step not in recorded:
            if not self.evidence.is_complete and row.step > max(recorded, default=-1):
                return ""
            self.is_broken = True
            return f"not recorded, here {row.value!r}"
        self.n_compared += 1
        there = recorded[row.step]
        self.pairs.setdefault(row.key, []).append((row.step, there, row.value))
        if there == row.value:
            return ""
        units = units_in_the_last_place(there, row.value)
        known = f", {count(units, 'unit')} in the last place" if units is not None else ""
        return f"recorded {there!r}, here {row.value!r}{known}"

    def relative(self) -> Iterator[tuple[int, float]]:
        """Yields step and relative difference of each value that differs."""
        for pairs in self.pairs.values():
            for step, recorded, here in pairs:
                if recorded != here:
                    yield step, relative_difference(recorded, here)

    @property
    def first(self) -> int | None:
        """The first step of which a value differs; None if there is none."""
        return min((step for step, _ in self.relative()), default=None)

    @property
    def accuracy(self) -> float:
        """The largest difference of a result that is a share, such as an accuracy."""
        shares = [pairs for key, pairs in self.pairs.items() if key.startswith(RESULTS) and "loss" not in key]
        return max((abs(a - b) for pairs in shares for _, a, b in pairs), default=0.0)

    def explanation(self) -> str:
        """Returns which part of a step was the first that differed; empty if no part differs."""
        other = {
            (step, part, key)
            for key, pairs in self.pairs.items()
            for step, recorded, here in pairs
            for part, (prefixes, _) in enumerate(PARTS)
            if recorded != here and key.startswith(prefixes)
        }
        if not other:
            return ""
        step, part, _ = min(other)
        keys = sorted(key for at, of_part, key in other if (at, of_part) == (step, part))
        before = {
            name
            for prefixes, name in PARTS[:part]
            for key, pairs in self.pairs.items()
            if key.startswith(prefixes) and any(at == step for at, *_ in pairs)
        }
        equal = [name for _, name in PARTS if name in before]
        text = f"; as recorded are {', '.join(equal)}" if equal else ""
        return f"step {step:,} is the first that differs, in {PARTS[part][1]} ({', '.join(keys)}){text}"


def relative_difference(a: float, b: float) -> float:
    """Returns the difference of two numbers, relative to the larger one; 0 if they are equal."""
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def units_in_the_last_place(a: float, b: float) -> int | None:
    """Returns how many float32 numbers lie between two, plus one; None if they are not float32 numbers."""
    single = [np.float32(each) for each in (a, b)]
    if [float(each) for each in single] != [a, b]:
        return None
    first, second = (_ordered(each) for each in single)
    return abs(first - second)


def _ordered(value: np.float32) -> int:
    """Returns the number of a float32 number in the order of all."""
    bits = int(np.array(value, np.float32).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)
