"""Comparison of a run with what is recorded: what it finds, and which verdict it gives."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlp_tape.runs.comparison import Comparison
from mlp_tape.runs.evidence import Evidence, units_in_the_last_place
from mlp_tape.runs.verdict import DIFFERENT, IDENTICAL, ROUNDING
from mlp_tape.storage.journal import Row

STEPS, PER_EPOCH = 40, 10
Rows = dict[str, dict[int, float]]


def recorded() -> Rows:
    """Rows of a run of four epochs."""
    losses = {step: float(np.float32(2 / (step + 1) + 0.1)) for step in range(STEPS)}
    ends = range(PER_EPOCH - 1, STEPS, PER_EPOCH)
    return {
        "train/loss": losses,
        "params/w1/norm": {step: 11.0 + step / 7 for step in range(0, STEPS, 5)},
        "grads/w1/norm": {step: 1 / (step + 3) for step in range(0, STEPS, 5)},
        "updates/w1/ratio": {step: 1 / (step + 300) for step in range(0, STEPS, 5)},
        "test/loss": {step: losses[step] * 1.1 for step in ends},
        "test/accuracy": {step: 0.9 + step / 1000 for step in ends},
    }


def compared(there: Rows, here: Rows, **of_evidence: Any) -> tuple[Comparison, list[str]]:
    """Compares rows in the order in which a run records them; returns the printed lines, too."""
    found = Comparison([Evidence("MLflow", there, {}, **of_evidence)], PER_EPOCH)
    rows = sorted(
        (Row(key, step, value, 0) for key, of_key in here.items() for step, value in of_key.items()),
        key=lambda row: row.step,
    )
    lines = [line for row in rows for line in found.rows([row])]
    return found, [*lines, *found.unseen()]


def test_equal_rows_are_identical() -> None:
    found, lines = compared(recorded(), recorded())
    assert (found.verdict, found.is_equal, lines) == (IDENTICAL, True, [])
    assert found.n_compared == sum(map(len, recorded().values()))
    assert not found.explanation()


def test_nothing_to_compare_proves_nothing() -> None:
    found, _ = compared({}, {}, is_complete=False)
    assert not found.is_equal


def changed(rows: Rows, key: str, step: int, change: Callable[[float], float]) -> Rows:
    rows[key][step] = change(rows[key][step])
    return rows


@pytest.mark.parametrize("key", list(recorded()))
@pytest.mark.parametrize("change", [lambda v: v * 1.01, lambda v: float(np.nextafter(v, 10.0)), lambda v: -v])
def test_a_changed_row_is_found_and_named(key: str, change: Callable[[float], float]) -> None:
    step = sorted(recorded()[key])[2]
    there = changed(recorded(), key, step, change)
    found, (line,) = compared(there, recorded())
    assert line.startswith(f"differs from MLflow: step {step:,}  {key}  recorded {there[key][step]!r}, here ")
    if key == "train/loss" or change(1.0) in (1.01, -1.0):
        assert found.verdict == f"{DIFFERENT} from step {step} on"


@pytest.mark.parametrize("key", list(recorded()))
def test_missing_and_additional_rows_are_found(key: str) -> None:
    there, step = recorded(), sorted(recorded()[key])[1]
    del there[key][step]
    found, (line,) = compared(there, recorded())
    assert f"step {step:,}  {key}  not recorded, here" in line and not found.is_equal
    found, (line,) = compared(recorded(), there)
    assert f"step {step:,}  {key}  recorded" in line and "not measured here" in line and not found.is_equal


def test_rows_after_the_end_of_a_run_that_was_stopped_are_not_missing() -> None:
    there = {key: {step: v for step, v in rows.items() if step < 25} for key, rows in recorded().items()}
    assert compared(there, recorded(), is_complete=False)[0].verdict == IDENTICAL
    assert not compared(there, recorded())[0].is_equal


def test_recorded_rows_after_the_last_step_of_a_shorter_run_are_not_compared() -> None:
    here = {key: {step: v for step, v in rows.items() if step < 10} for key, rows in recorded().items()}
    assert compared(recorded(), here)[0].verdict == IDENTICAL


def rounded(growth: float) -> Rows:
    """Rows that differ in the last place from step 5 on, and by more with each step."""
    rows, rng = recorded(), np.random.default_rng(0)
    for of_key in rows.values():
        for step in of_key:
            if step >= 5:
                noise = 1e-7 * growth ** (step - 5) * rng.uniform(0.5, 1)
                of_key[step] = float(np.float32(of_key[step] * (1 + noise)))
    return rows


def test_differences_that_begin_in_the_last_place_are_rounding() -> None:
    found, lines = compared(recorded(), rounded(1.3))
    assert found.is_equal and found.verdict.startswith(f"{ROUNDING} (largest relative difference ")
    assert "units in the last place" in lines[0] or "unit in the last place" in lines[0]


def test_a_row_that_is_missed_at_the_end_counts_from_its_step() -> None:
    """It is found after the differences of later steps, of which only the first few are shown."""
    there, here = recorded(), recorded()
    here["train/loss"] = {
        step: value if step < 10 else value * 1.5 for step, value in here["train/loss"].items()
    }
    del here["train/loss"][3]
    found, _ = compared(there, here)
    assert found.verdict == f"{DIFFERENT} from step 3 on"


@pytest.mark.parametrize("factor", [0.9, 1.001, 1.2])
def test_another_update_is_different(factor: float) -> None:
    here = recorded()
    for key, rows in here.items():
        for step in rows:
            if step > 0 or key.startswith("updates/"):
                rows[step] *= factor
    found, _ = compared(recorded(), here)
    assert found.verdict == f"{DIFFERENT} from step 0 on" and not found.is_equal
    (line,) = found.explanation()
    assert line == (
        "step 0 is the first that differs, in the updates (updates/w1/ratio); "
        "as recorded are the parameters before the step, the loss, the gradients"
    )


def test_rounding_that_ends_in_other_results_is_different() -> None:
    for key, change in (("test/accuracy", lambda v: v - 0.03), ("test/loss", lambda v: v * 1.002)):
        assert not compared(recorded(), changed(rounded(1.3), key, 39, change))[0].is_equal
    assert not compared(recorded(), rounded(1.55))[0].is_equal


def test_bfloat16_rounds_coarsely() -> None:
    here = {key: {step: v * (1 + 0.002) for step, v in rows.items()} for key, rows in recorded().items()}
    assert not compared(recorded(), here)[0].is_equal
    found = Comparison([Evidence("MLflow", recorded(), {})], PER_EPOCH, precision="bfloat16")
    assert list(found.rows(Row(key, s, v, 0) for key, rows in here.items() for s, v in rows.items()))
    assert found.is_equal


def test_rounding_that_training_amplifies_is_no_other_result() -> None:
    here, there = ({"train/loss": {s: 1 / (s + 1) for s in range(1000)}} for _ in range(2))
    for step in range(15, 1000):
        here["train/loss"][step] *= 1 + 1e-7 * 1.012 ** (step - 15) * (-1) ** step
    found, _ = compared(there, here)
    assert found.is_equal and "in the first 100 steps that differ" in found.verdict


def test_weights_are_compared_by_their_checksums() -> None:
    known = {10: {"w1": "a", "b1": "b"}}
    found = Comparison([Evidence("MLflow", {}, known)], PER_EPOCH)
    assert not list(found.weights(10, {"w1": "a", "b1": "b"}))
    assert found.verdict == IDENTICAL
    (line,) = found.weights(10, {"w1": "a", "b1": "c"})
    assert line == "differs from MLflow: step 10  weights  b1 with another SHA-256"
    assert found.verdict == f"{DIFFERENT} from step 10 on"
    assert not list(found.weights(20, {"w1": "z"})), "no checksums are recorded"


def test_each_place_is_compared() -> None:
    there = changed(recorded(), "test/accuracy", 19, lambda value: 0.99)
    places = [Evidence("the directory", recorded(), {}), Evidence("MLflow", there, {})]
    found = Comparison(places, PER_EPOCH)
    lines = list(found.rows(Row(key, s, v, 0) for key, rows in recorded().items() for s, v in rows.items()))
    assert len(lines) == 1 and lines[0].startswith("differs from MLflow: step 19  test/accuracy")
    assert not found.is_equal


def test_places_that_agree_are_named_together() -> None:
    there = changed(recorded(), "train/loss", 3, lambda value: 0.5)
    found = Comparison([Evidence(place, there, {}) for place in ("the directory", "MLflow")], PER_EPOCH)
    (line,) = found.rows([Row("train/loss", 3, 0.25, 0)])
    assert line == (
        "differs from the directory and MLflow: step 3  train/loss  recorded 0.5, here 0.25, "
        "8,388,608 units in the last place"
    )
    assert len(found.explanation()) == 1


def test_units_in_the_last_place_are_counted_across_zero() -> None:
    one = float(np.float32(1.0))
    assert units_in_the_last_place(one, float(np.nextafter(np.float32(1), np.float32(2)))) == 1
    tiny = float(np.nextafter(np.float32(0), np.float32(1)))
    assert units_in_the_last_place(-tiny, tiny) == 2
    assert units_in_the_last_place(0.0, -0.0) == 0
    assert units_in_the_last_place(math.pi, one) is None, "no float32 number"
