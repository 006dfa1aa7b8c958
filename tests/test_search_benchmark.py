"""The benchmark of searches: what counts, what is reported, and that its programs search the same space."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import search
from conftest import ROOT
from mlp_tape.data.datasets import Dataset

OTHERS = (search.UNPRUNED, search.KERAS_LOOP)


def entry(method: str, seed: int, *trials: tuple[float, float, int], budget: float = 100) -> dict[str, Any]:
    named = [dict(zip(("seconds", "accuracy", "pruned"), trial, strict=True)) for trial in trials]
    return {"method": method, "seed": seed, "budget": budget, "trials": named}


def rows(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in list(search.table(entries))[2:]]
    return {cells[0]: cells[1:] for cells in lines}


def test_pruned_trials_are_counted_and_never_the_best() -> None:
    trials = (10.0, 0.9, 0), (20.0, 0.99, 3), (40.0, 0.95, 0)
    (found,) = rows([entry(search.PRUNED, 1, *trials)]).values()
    assert found == ["1", "2", "1", "0.9000", "0.9500", "0.9500", "-"]


def test_medians_and_ranges_over_seeds_and_the_time_to_reach_the_plugin() -> None:
    entries = [
        *(
            entry(search.PLUGIN, seed, (80.0, accuracy, 0))
            for seed, accuracy in enumerate((0.97, 0.96, 0.98))
        ),
        *(entry(search.PRUNED, seed, (at, 0.97, 0)) for seed, at in enumerate((30.0, 20.0, 40.0))),
        entry(search.KERAS_LOOP, 0, (90.0, 0.9, 0)),
    ]
    found = rows(entries)
    assert found["mlp_tape, pruned"][-1] == "30 s (20 s to 40 s)"
    plugin = found["mlp_tape with Hydra's plug-in of 2022"]
    assert plugin[3:] == ["-", "-", "0.9700 (0.9600 to 0.9800)", "80 s (80 s to -)"]
    assert found["Optuna with a Keras loop, pruned"][-1] == "-"


def test_report_is_made_of_what_there_is_and_refuses_other_budgets(tmp_path: Path) -> None:
    entries = [entry(search.UNPRUNED, 1, (10.0, 0.9, 0)), entry(search.KERAS_LOOP, 1)]
    search.plot(tmp_path / "plot.png", entries)
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="the budgets differ: 60 s, 100 s"):
        list(search.table([*entries, entry(search.PRUNED, 1, budget=60)]))


def test_a_measurement_replaces_that_of_its_method_and_seed() -> None:
    first, other = entry(search.KERAS_LOOP, 1), entry(search.PRUNED, 2)
    again = entry(search.KERAS_LOOP, 1, (1.0, 0.9, 0))
    assert search.replaced([first, other], again) == [other, again]


def test_documentation_shows_the_table_of_the_measured_searches() -> None:
    if not search.FILE.exists():
        pytest.skip("the searches have not been measured")
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for processor, entries in search.of_machines(json.loads(search.FILE.read_text())).items():
        assert "\n".join([f"{processor}:", "", *search.table(entries)]) in page


@pytest.mark.long
@pytest.mark.parametrize(
    "method", [search.PRUNED, *(pytest.param(each, marks=pytest.mark.soak) for each in OTHERS)]
)
def test_a_search_is_measured(method: str, mnist_5k: Dataset, tmp_path: Path) -> None:
    data, budget = tmp_path / "data.npz", 60
    parts = {name: getattr(mnist_5k, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(data, **parts)
    trials = search.measured(sys.executable, method, 1, budget, data)
    assert trials and all(0 < each.seconds <= budget for each in trials)
    assert [each for each in trials if not each.pruned and each.accuracy > 0.5]
    assert all(each.pruned == 0 for each in trials) or method != search.UNPRUNED
