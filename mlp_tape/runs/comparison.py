"""Comparison of a run with what is recorded of an earlier one, value by value."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlp_tape.runs.evidence import ComparedPlace, Difference, Evidence
from mlp_tape.runs.pruning import Pruning
from mlp_tape.runs.verdict import DIFFERENT, IDENTICAL, ROUNDING, STEPS, is_rounding, sizes
from mlp_tape.storage.checksums import Checksums
from mlp_tape.storage.journal import Row

VERDICT = "verdict"  # MLflow tag of a run that repeats an earlier one
SHOWN = 5  # differences of each place that are shown


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
        self._places = [ComparedPlace(each) for each in places]
        self._steps_per_epoch = steps_per_epoch
        self._last = -1
        self._precision = precision
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
            if text:
                place.earliest = step if place.earliest is None else min(step, place.earliest)
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
        first = [place.earliest for place in self._places if place.earliest is not None]
        if not first:
            return IDENTICAL if self.n_compared else "nothing was compared"
        others = [place for place in self._places if place.differences]
        if all(is_rounding(each, self._steps_per_epoch, self._precision) for each in others):
            early, accuracy = (max(each) for each in zip(*map(sizes, others), strict=True))
            of_results = f", {accuracy:.1g} in an accuracy" if accuracy else ""
            return (
                f"{ROUNDING} (largest relative difference {early:.1g} "
                f"in the first {STEPS} steps that differ{of_results})"
            )
        return f"{DIFFERENT} from step {min(first):,} on"

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
        return list(dict.fromkeys(filter(None, (place.explanation() for place in self._places))))
