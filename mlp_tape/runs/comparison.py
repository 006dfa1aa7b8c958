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
# Another order of additions changes the last bits, and training amplifies that: with Adam on MNIST, from 7e-8
# to 4e-7 within 300 steps, and to 0.2 of the mean loss of an epoch in 4,000. Differences of rounding are:
FIRST = 1e-5  # at most, of the first step that differs
EARLY, STEPS = 1e-3, 100  # and of as many steps from there on
COARSE = 1_000  # factor for both if the forward pass is computed in bfloat16
MEAN = 0.5  # of the mean loss of each epoch
ACCURACY = 0.02  # of an accuracy or F1, an absolute difference
VERDICT = "verdict"  # MLflow tag of a run that repeats an earlier one
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


@dataclass
class _Place:
    """What was found about a place so far."""

    evidence: Evidence
    differences: list[Difference] = field(default_factory=list)
    n_compared: int = 0
    pairs: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)  # step, recorded, here
    is_broken: bool = False  # whether a row is missing

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
                    yield step, _relative(recorded, here)

    @property
    def first(self) -> int | None:
        """The first step of which a value differs; None if there is none."""
        return min((step for step, _ in self.relative()), default=None)

    @property
    def accuracy(self) -> float:
        """The largest difference of a result that is a share, such as an accuracy."""
        shares = [pairs for key, pairs in self.pairs.items() if key.startswith(RESULTS) and "loss" not in key]
        return max((abs(a - b) for pairs in shares for _, a, b in pairs), default=0.0)


class Comparison:
    """Compares the rows and the weights of a run with evidence, as they come.

    Args:
        places: evidence of each place; all of the same run.
        steps_per_epoch: number of steps in an epoch.
        pruning: ends the run early; None for no end.
        precision: dtype of the forward pass.

    Attributes:
        pruning: as given.
    """

    def __init__(
        self,
        places: Sequence[Evidence],
        steps_per_epoch: int,
        pruning: Pruning | None = None,
        precision: str = "float32",
    ) -> None:
        self._places = [_Place(each) for each in places]
        self._steps_per_epoch = steps_per_epoch
        self._last = -1
        self._coarseness = COARSE if precision == "bfloat16" else 1
        self.pruning = pruning

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """Compares metric rows; yields a line for each of the first differences."""
        for row in rows:
            self._last = max(self._last, row.step)
            texts = {place.evidence.place: place.compared(row) for place in self._places}
            yield from self._add(row.key, row.step, texts)

    def weights(self, step: int, found: Checksums) -> Iterator[str]:
        """Compares the checksums of the parameters after a number of steps."""
        texts = {}
        for place in self._places:
            recorded = place.evidence.checksums.get(step, found)
            place.n_compared += recorded is not found
            names = [name for name in found if found[name] != recorded.get(name)]
            texts[place.evidence.place] = f"{', '.join(names)} with another SHA-256" if names else ""
        yield from self._add("weights", step, texts)

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
                        yield from self._add(key, step, {place.evidence.place: text})

    def _add(self, what: str, step: int, texts: Mapping[str, str]) -> Iterator[str]:
        """Adds a difference of some places, by their names; yields a line for each of the first."""
        of_text: dict[str, list[str]] = {}
        for place in self._places:
            text = texts.get(place.evidence.place)
            if text and len(place.differences) < SHOWN:
                place.differences.append(Difference(place.evidence.place, what, step, text))
                of_text.setdefault(text, []).append(place.evidence.place)
        for text, names in of_text.items():
            yield f"differs from {' and '.join(names)}: step {step:,}  {what}  {text}"

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
            early, accuracy = (max(each) for each in zip(*map(_sizes, others), strict=True))
            of_results = f", {accuracy:.1g} in an accuracy" if accuracy else ""
            return (
                f"{ROUNDING} (largest relative difference {early:.1g} "
                f"in the first {STEPS} steps that differ{of_results})"
            )
        return f"{DIFFERENT} from step {first.step:,} on"

    @property
    def tags(self) -> dict[str, str]:
        """The MLflow tags that say what was found."""
        return {VERDICT: self.verdict}

    @property
    def is_equal(self) -> bool:
        """Whether the verdict is that the run was reproduced."""
        return self.verdict.startswith((IDENTICAL, ROUNDING))

    def explanation(self) -> list[str]:
        """Returns which part of a step was the first that differed; a line for each answer of the places."""
        return list(dict.fromkeys(self._explanations()))

    def _explanations(self) -> Iterator[str]:
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
        """Returns whether the differences are such as another order of additions causes.

        They are small at first, grow gradually, and lead to similar results. Once a loss differs, most losses
        after it do: a value that differs while those that follow from it are the same was not computed so.
        """
        first = place.first
        if place.is_broken or first is None:
            return False
        early = [(step, each) for step, each in place.relative() if step < first + STEPS]
        if any(each > (FIRST if step == first else EARLY) * self._coarseness for step, each in early):
            return False
        losses = [recorded != here for _, recorded, here in place.pairs.get(TRAIN_LOSS, [])]
        after = losses[losses.index(True) :] if True in losses else []
        if sum(after) < len(after) / 2 or place.accuracy > ACCURACY:
            return False
        pairs, n = place.pairs.get(TRAIN_LOSS, []), self._steps_per_epoch
        epochs = [pairs[i : i + n] for i in range(0, len(pairs), n)]
        means = [[math.fsum(pair[which] for pair in epoch) for which in (1, 2)] for epoch in epochs]
        return all(_relative(*pair) <= MEAN for pair in means)


def _sizes(place: _Place) -> tuple[float, float]:
    """Returns the largest relative difference of the first steps that differ, and that of an accuracy."""
    first = place.first or 0
    return max(each for step, each in place.relative() if step < first + STEPS), place.accuracy


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
