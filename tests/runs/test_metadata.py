"""The name of a run."""

from pathlib import Path
from typing import Any

import pytest

from mlp_tape.config.settings import Settings
from mlp_tape.data.datasets import Dataset
from mlp_tape.reports import description
from mlp_tape.runs.metadata import Job, describe_run
from mlp_tape.storage.run_record import Command, RunRecord


@pytest.mark.parametrize("typed", ["1e6", "1000000.0", "+1e+06"])
def test_value_has_the_same_form_in_the_name_however_it_was_typed(mnist_5k: Dataset, typed: str) -> None:
    settings, overrides = Settings(lr=1e6), [f"lr={typed}", "tracking.uri=http://x", "dataset.path=x.npz"]
    run = describe_run(RunRecord(Path()), settings, mnist_5k, [784, 10], Command([], overrides), None)
    job = Job(f"lr={typed} optimizer=adam tracking.enabled=False", "parent", mnist_5k)
    assert run.name == "lr=1e+06"
    assert run.overrides == overrides
    run = describe_run(RunRecord(Path()), settings, mnist_5k, [784, 10], Command([], overrides), job)
    assert run.name == "lr=1e+06 optimizer=adam"


def test_given_name_comes_first_and_tags_and_note_are_not_in_a_name(
    mnist_5k: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described(overrides: list[str], **settings: Any) -> RunRecord:
        command = Command([], overrides)
        return describe_run(RunRecord(Path()), Settings(**settings), mnist_5k, [784, 10], command, None)

    assert described(["lr=0.1", "tags.team=x", "+note=y"], lr=0.1).name == "lr=0.1"
    monkeypatch.setenv("MLFLOW_RUN_NAME", "of the environment")
    assert described(["lr=0.1"]).name == "of the environment"
    assert described(["hydra.job.name=typed"]).name == "typed"
    run = described(["hydra.job.name=typed", "run_name=first", "note=y"], run_name="first", note="**Why.**")
    assert run.name == "first"
    assert not {"run_name", "tags", "note"} & set(run.params)
    assert next(iter(description.tags(run).values())).startswith("**Why.**\n\nA multilayer perceptron")


def test_description_of_one_epoch_has_the_accuracy_of_each_split(mnist_5k: Dataset) -> None:
    run = describe_run(RunRecord(Path()), Settings(epochs=1), mnist_5k, [784, 10], Command([], []), None)
    run.status, run.steps = "FINISHED", 1
    run.results = {"test/accuracy": 0.9, "test/loss": 0.1, "validation/accuracy": 0.8}
    (text,) = description.tags(run).values()
    assert "**: 1 epoch in batches of 128" in text
    expected = "**Test accuracy 0.9000**, validation accuracy 0.8000, test loss 0.100000 after 1 step in"
    assert expected in text
