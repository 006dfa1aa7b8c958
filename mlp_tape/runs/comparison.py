"""Comparison of a run with what is recorded of an earlier one, value by value, and the verdict."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlp_tape.runs.pruning import Pruning
from mlp_tape.storage.checksums import Checksums
from mlp_tape.storage.journal import Row
from mlp_tape.storage.metric_keys import TRAIN_LOSS
from mlp_tape.system.formatting import count

IDENTICAL, ROUNDING, DIFFERENT = "bit-identical", "equal to within rounding", "different"
# Rounding differs by some units in the last place of float32 at first, and training amplifies that.
VERDICT = "verdict"  # MLflow tag of a run that repeats an earlier one
FIRST = 1e-5  # largest relative difference of the first values that differ, for a difference in rounding
LARGEST = 0.05  # and, later, of each result on test or validation images, and of the mean loss of each epoch
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
SHOWN = 5  # differences of each place that are shown


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

    def __str__(self) -> str:
        """Describes the difference in a line."""
        return f"step {self.step:,}  {self.what}  {self.text}"


@dataclass
class _Place:
    """What was found about a place so far."""

    evidence: Evidence
    differences: list[Difference] = field(default_factory=list)
    n_different: int = 0
    n_compared: int = 0
    pairs: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)  # step, recorded, here
    is_broken: bool = False  # whether a row is missing

    def relative(self, key: str) -> list[float]:
        """Returns the relative difference of each pair of a key."""
        return [_relative(recorded, here) for _, recorded, here in self.pairs.get(key, [])]

    @property
    def largest(self) -> float:
        """The largest relative difference of a loss of a step."""
        return max(self.relative(TRAIN_LOSS), default=0.0)


class Comparison:
    """Compares the rows and the weights of a run with evidence, as they come.

    Args:
        places: evidence of each place; all of the same run.
        steps_per_epoch: number of steps in an epoch.
        pruning: ends the run early; None for no end.

    Attributes:
        pruning: as given.
    """

    def __init__(
        self, places: Sequence[Evidence], steps_per_epoch: int, pruning: Pruning | None = None
    ) -> None:
        self._places = [_Place(each) for each in places]
        self._steps_per_epoch = steps_per_epoch
        self._last = -1
        self.pruning = pruning

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """Compares metric rows; yields a line for each of the first differences."""
        for row in rows:
            self._last = max(self._last, row.step)
            for place in self._places:
                recorded = place.evidence.rows.get(row.key, {})
                if row.step not in recorded:
                    yield from self._missing(place, row)
                    continue
                place.n_compared += 1
                place.pairs.setdefault(row.key, []).append((row.step, recorded[row.step], row.value))
                if recorded[row.step] != row.value:
                    text = f"recorded {recorded[row.step]!r}, here {row.value!r}"
                    units = units_in_the_last_place(recorded[row.step], row.value)
                    known = f", {count(units, 'unit')} in the last place" if units is not None else ""
                    yield from self._add(place, row.key, row.step, text + known)

    def weights(self, step: int, found: Checksums) -> Iterator[str]:
        """Compares the checksums of the parameters after a number of steps."""
        for place in self._places:
            recorded = place.evidence.checksums.get(step)
            if recorded is None:
                continue
            place.n_compared += 1
            names = [name for name in found if found[name] != recorded.get(name)]
            if names:
                yield from self._add(place, f"weights {', '.join(names)}", step, "another SHA-256")

    def unseen(self) -> Iterator[str]:
        """Compares what was recorded but did not come; to be called at the end.

        A run that has validation images is tested at its end only. If it was trained further after that,
        there are results of earlier ends as well.
        """
        for place in self._places:
            validates = any(key.startswith("validation/") for key in place.evidence.rows)
            for key, recorded in place.evidence.rows.items():
                seen = {step for step, *_ in place.pairs.get(key, [])}
                is_tested_early = validates and key.startswith(("test/", "units/"))
                for step in sorted(set(recorded) - seen):
                    is_end = (step + 1) % self._steps_per_epoch == 0
                    if step <= self._last and not (is_tested_early and is_end and step < self._last):
                        place.is_broken = True
                        text = f"recorded {recorded[step]!r}, and not measured here"
                        yield from self._add(place, key, step, text)

    def _missing(self, place: _Place, row: Row) -> Iterator[str]:
        recorded = place.evidence.rows.get(row.key, {})
        ended = not place.evidence.is_complete and row.step > max(recorded, default=-1)
        if not ended:
            place.is_broken = True
            yield from self._add(place, row.key, row.step, f"not recorded, here {row.value!r}")

    def _add(self, place: _Place, what: str, step: int, text: str) -> Iterator[str]:
        place.n_different += 1
        if len(place.differences) < SHOWN:
            place.differences.append(Difference(place.evidence.place, what, step, text))
            yield f"differs from {place.evidence.place}: {place.differences[-1]}"

    @property
    def differences(self) -> list[Difference]:
        """The first differences, of all places, by step."""
        return sorted((each for place in self._places for each in place.differences), key=lambda d: d.step)

    @property
    def n_compared(self) -> int:
        """The number of values that were compared."""
        return sum(place.n_compared for place in self._places)

    @property
    def verdict(self) -> str:
        """The verdict, in words."""
        first = next(iter(self.differences), None)
        if first is None:
            return IDENTICAL if self.n_compared else "nothing was compared"
        others = [place for place in self._places if place.differences]
        if all(map(self._is_rounding, others)):
            return f"{ROUNDING} (largest relative difference {max(each.largest for each in others):.1g})"
        return f"{DIFFERENT} from step {first.step:,} on"

    @property
    def tags(self) -> dict[str, str]:
        """The MLflow tags that say what was found."""
        return {VERDICT: self.verdict}

    @property
    def is_equal(self) -> bool:
        """Whether the verdict is that the run was reproduced."""
        return self.verdict.startswith((IDENTICAL, ROUNDING))

    def explanation(self) -> Iterator[str]:
        """Yields, for each place with differences, which part of a step was the first that differed."""
        for place in self._places:
            other = {
                (step, part, key)
                for key, pairs in place.pairs.items()
                for step, recorded, here in pairs
                for part, (prefixes, _) in enumerate(PARTS)
                if recorded != here and key.startswith(prefixes)
            }
            if not other:
                continue
            step, part, _ = min(other)
            keys = sorted(key for at, of_part, key in other if (at, of_part) == (step, part))
            before = {
                name
                for prefixes, name in PARTS[:part]
                for key, pairs in place.pairs.items()
                if key.startswith(prefixes) and any(at == step for at, *_ in pairs)
            }
            equal = [name for _, name in PARTS if name in before]
            text = f"; as recorded are {', '.join(equal)}" if equal else ""
            yield f"step {step:,} is the first that differs, in {PARTS[part][1]} ({', '.join(keys)}){text}"

    def _is_rounding(self, place: _Place) -> bool:
        """Returns whether the differences are such as another order of rounding causes.

        The first values that differ do so by at most FIRST, and results and the mean loss of each epoch by at
        most LARGEST. Once a loss differs, most losses after it do: a value that differs while those that
        follow from it are the same was not computed so.
        """
        if place.is_broken:
            return False
        differing = [
            (step, _relative(recorded, here))
            for of_key in place.pairs.values()
            for step, recorded, here in of_key
            if recorded != here
        ]
        first = min((step for step, _ in differing), default=None)
        if first is None or any(each > FIRST for step, each in differing if step == first):
            return False
        losses = place.relative(TRAIN_LOSS)
        after = losses[next((i for i, each in enumerate(losses) if each), len(losses)) :]
        if sum(map(bool, after)) < len(after) / 2:
            return False
        results = [key for key in place.pairs if key.startswith(("test/", "validation/"))]
        largest = FIRST if not after else LARGEST
        if any(each > largest for key in results for each in place.relative(key)):
            return False
        pairs, n = place.pairs.get(TRAIN_LOSS, []), self._steps_per_epoch
        epochs = [pairs[i : i + n] for i in range(0, len(pairs), n)]
        means = [[math.fsum(pair[which] for pair in epoch) for which in (1, 2)] for epoch in epochs]
        return all(_relative(*pair) <= LARGEST for pair in means)


def _relative(a: float, b: float) -> float:
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
