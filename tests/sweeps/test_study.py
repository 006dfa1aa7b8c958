"""Tests of the study of a search: proposals and decisions that a kill between two appends does not change."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_tape.storage import run_paths
from mlp_tape.sweeps import study
from mlp_tape.sweeps.space import Parameter
from mlp_tape.sweeps.study import Proposal, Study, pruning

optuna = pytest.importorskip("optuna")

EPOCHS = 6
SPACE = [
    Parameter("lr", "float", 0.001, 1, log=True),
    Parameter("batch_size", "int", 16, 64, step=16),
    Parameter("optimizer", "categorical", choices=["sgd", "adam"], typed=["sgd", "adam"]),
]
NUMBERS = SPACE[:2]
PRUNERS: dict[str, dict[str, Any]] = {
    "median": {"n_startup_trials": 2},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "none": {},
}


def a_search(sampler: str = "tpe", pruner: str = "median", space: list[Parameter] = SPACE) -> dict[str, Any]:
    """Returns a `RunRecord.search` with few trials at random before the sampler models them."""
    options = {"n_startup_trials": 3} if sampler in ("tpe", "cmaes") else {}
    return {
        "sampler": {"name": sampler, "seed": 5, **options},
        "pruner": {"name": pruner, **PRUNERS[pruner]},
        "objectives": ["validation/accuracy"],
        "directions": ["maximize"],
        "n_trials": 12,
        "space": [each.to_dict() for each in space],
        "seeds": [],
        "settings": {"epochs": EPOCHS},
    }


def curve(params: dict[str, Any]) -> Iterator[float]:
    """Yields a made-up accuracy after each epoch, better the closer lr is to 0.1."""
    quality = 1 - abs(params["lr"] - 0.1) - (0.1 if params.get("optimizer") == "adam" else 0)
    for epoch in range(EPOCHS):
        yield quality * (1 - 0.5 ** (epoch + 1)) + (0.01 * params["batch_size"] * (-1) ** epoch) / 64


def identity(params: dict[str, Any]) -> str:
    return repr(sorted(params.items()))


def step(directory: Path, search: dict[str, Any]) -> bool:
    """Runs what one process does with the next trial, which may have been begun; returns whether it did."""
    study = Study(directory, search)
    if not study.unfinished:
        if len(study.trials) >= study.most:
            return False
        proposal = study.propose()
        study.add(proposal, [identity(proposal.params)], EPOCHS)
    (trial,) = study.unfinished
    report = pruning(directory, search, trial.user_attrs["jobs"][0])
    values = list(curve(trial.params))
    if report and any(report(epoch, value) for epoch, value in enumerate(values)):
        study.prune(trial)
    else:
        study.complete(trial, [max(values)])
    return True


def history(directory: Path, search: dict[str, Any]) -> list[tuple[Any, ...]]:
    trials = Study(directory, search).trials
    return [
        (each.number, each.state.name, each.params, each.values, each.intermediate_values, each.system_attrs)
        for each in trials
    ]


def searched(directory: Path, search: dict[str, Any]) -> list[tuple[Any, ...]]:
    directory.mkdir(exist_ok=True)
    while step(directory, search):
        pass
    return history(directory, search)


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe", "median"),
        ("tpe", "successive_halving"),
        ("cmaes", "hyperband"),
        ("qmc", "none"),
        pytest.param("random", "hyperband", marks=pytest.mark.long),
        pytest.param("grid", "median", marks=pytest.mark.long),
        pytest.param("cmaes", "median", marks=pytest.mark.long),
        pytest.param("tpe", "hyperband", marks=pytest.mark.long),
    ],
)
def test_a_kill_between_any_two_appends_changes_nothing(tmp_path: Path, sampler: str, pruner: str) -> None:
    space = NUMBERS if sampler == "cmaes" else SPACE
    if sampler == "grid":
        space = [Parameter("lr", "float", 0.05, 0.2, step=0.05), *SPACE[1:]]
    search = a_search(sampler, pruner, space)
    undisturbed = searched(tmp_path / "undisturbed", search)
    assert len(undisturbed) == 12
    if pruner != "none":
        assert "PRUNED" in [state for _, state, *_ in undisturbed]
    lines = (tmp_path / "undisturbed" / run_paths.STUDY).read_bytes().splitlines(keepends=True)
    for n in range(len(lines)):
        killed = tmp_path / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        torn = lines[n][: len(lines[n]) // 2]
        (killed / run_paths.STUDY).write_bytes(b"".join(lines[:n]) + torn)
        assert searched(killed, search) == undisturbed, f"killed in append {n}: {lines[n][:200]!r}"


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "qmc", "grid"])
def test_a_sampler_proposes_values_of_the_space_and_learns(tmp_path: Path, sampler: str) -> None:
    space = [Parameter("lr", "float", 0.0, 1.0, step=0.01), SPACE[1]] if sampler == "grid" else NUMBERS
    found = searched(tmp_path, a_search(sampler, "none", space))
    points = [(params["lr"], params["batch_size"]) for _, _, params, *_ in found]
    assert len(set(points)) == len(points) == 12
    assert all(0 <= lr <= 1 and size in (16, 32, 48, 64) for lr, size in points)
    if sampler == "grid":
        assert points[:5] == [(0.0, 16), (0.0, 32), (0.0, 48), (0.0, 64), (0.01, 16)]
    other = a_search(sampler, "none", space)
    other["sampler"]["seed"] = 6
    repeated, changed = searched(tmp_path / "again", a_search(sampler, "none", space)), tmp_path / "other"
    assert repeated == found
    assert (searched(changed, other) == found) == (sampler == "grid")


def test_what_samplers_write_is_stored_together_with_the_trial(tmp_path: Path) -> None:
    search = a_search("cmaes", "none", NUMBERS)
    searched(tmp_path, search)
    for line in (tmp_path / run_paths.STUDY).read_text().splitlines():
        assert '"op_code":8' not in line  # SET_TRIAL_SYSTEM_ATTR
    attrs = [key for *_, each in history(tmp_path, search) for key in each]
    assert "cma:generation" in attrs


def test_a_resumed_job_gets_the_decisions_that_it_got_before(tmp_path: Path) -> None:
    search = a_search("random", "successive_halving")
    study = Study(tmp_path, search)
    for lr in (0.1, 0.5, 0.9):
        params = {"lr": lr, "batch_size": 16, "optimizer": "sgd"}
        study.add(Proposal(len(study.trials), params, {}), [f"{lr}"], 9)
    answers = {}
    for name in ("0.1", "0.5", "0.9"):
        report = pruning(tmp_path, search, name)
        assert report
        answers[name] = [report(epoch, 1 - float(name)) for epoch in range(2)]
    assert answers == {"0.1": [False, False], "0.5": [False, True], "0.9": [False, True]}
    recorded = history(tmp_path, search)
    for name, given in answers.items():
        report = pruning(tmp_path, search, name)
        assert report
        assert [report(epoch, 0.0) for epoch in range(2)] == given
    assert history(tmp_path, search) == recorded


def test_seeds_are_rounds_and_the_mean_is_reported(tmp_path: Path) -> None:
    search = a_search("random") | {"seeds": ["0", "1"]}
    study = Study(tmp_path, search)
    study.add(study.propose(), ["first", "second"], 2)
    report = pruning(tmp_path, search, "first")
    assert report
    report(0, 0.2)
    report(1, 0.4)
    study.set_seeds(study.unfinished[0], [0.6])
    report = pruning(tmp_path, search, "second")
    assert report
    report(0, 0.2)
    report(1, 0.8)
    (trial,) = study.trials
    assert trial.intermediate_values == {0: 0.2, 1: 0.4, 2: pytest.approx(0.4), 3: pytest.approx(0.7)}


def test_a_sampler_avoids_settings_that_diverge(tmp_path: Path) -> None:
    search = a_search(pruner="none", space=NUMBERS) | {"n_trials": 40}
    study = Study(tmp_path, search)
    for number in range(40):
        study.add(study.propose(), [str(number)], EPOCHS)
        (trial,) = study.unfinished
        if trial.params["lr"] > 0.3:
            study.diverge(trial, "the loss is inf")
        else:
            study.complete(trial, [trial.params["lr"]])  # the best are close to those that diverge
    diverged = [each.params["lr"] > 0.3 for each in study.trials]
    assert 0 < sum(diverged[-20:]) < 8


def test_nothing_is_pruned_without_a_pruner_or_with_two_objectives(tmp_path: Path) -> None:
    assert pruning(tmp_path, {}, "any") is None
    assert pruning(tmp_path, a_search(pruner="none"), "any") is None
    two = a_search() | {"directions": ["maximize", "minimize"], "objectives": ["a", "b"]}
    assert pruning(tmp_path, two, "any") is None
    assert pruning(tmp_path, a_search(), "of no trial") is None


def test_pruners_depend_on_the_length_of_a_trial() -> None:
    median = {"name": "median", "n_startup_trials": 5, "n_warmup_steps": None}
    assert [study._of_length(median, epochs, 2)["n_warmup_steps"] for epochs in (1, 3, 10)] == [0, 1, 3]
    typed = median | {"n_warmup_steps": 0}
    assert study._of_length(typed, 10, 2) == typed
    assert study._of_length({"name": "hyperband"}, 10, 2)["max_resource"] == 20
