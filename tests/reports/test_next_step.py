"""The last lines of a run: how good it is, and the one command to try next."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from conftest import ROOT, Run, sample
from mlp_tape.cli import composition
from mlp_tape.config.settings import DatasetSettings, OptimizerSettings, Settings
from mlp_tape.reports import next_step
from mlp_tape.reports.next_step import REFERENCES
from mlp_tape.system import program

DEFAULT = Settings()


@pytest.mark.parametrize("name", REFERENCES)
def test_each_run_on_a_known_data_set_is_led_to_the_next_command_until_it_is_good(name: str) -> None:
    reference = REFERENCES[name]
    accuracies = [0.1, *(step.accuracy for step in reference.steps)]
    assert accuracies == sorted(accuracies)
    led = [next_step.next_step(DEFAULT, name, accuracy) for accuracy in accuracies]
    assert led == [*reference.steps, None]
    assert reference.linear < reference.steps[-1].accuracy


@pytest.mark.parametrize(
    ("name", "accuracy", "verdict"),
    [
        ("mnist_5k", 0.135, "hardly begun to learn"),
        ("mnist", 0.52, "not as good as a linear classifier"),
        ("mnist", 0.97, "better than a linear classifier"),
        ("mnist", 0.991, "as good as the best settings known here"),
        ("arrays", 0.1, "no better than always giving the same answer"),
        ("mine.f", 0.7, "better than always giving the same answer"),
    ],
)
def test_an_accuracy_is_compared_with_what_is_known_of_its_data(
    name: str, accuracy: float, verdict: str
) -> None:
    assert next_step.how_good(name, accuracy, 0.1).startswith(verdict)


def test_own_data_with_default_settings_are_led_to_better_ones() -> None:
    data = DatasetSettings(name="arrays", path="/x y.npz", image_size=[8, 8], scale="0.5", offline="subset")
    own = Settings(dataset=data, epochs=3)
    _, step = next_step.closing(own, 0.4, 0.3)
    words = shlex.split(step.partition(f"{program.train()} ")[2])
    assert words[0] == "dataset=arrays"
    assert words[-3:] == next_step.FOR_OWN_DATA.split()
    composed = composition.settings_of(ROOT / "conf", words).dataset
    assert composed == dataclasses.replace(data, offline=None)
    assert len(next_step.closing(own, 0.97, 0.3)) == 1, "it is good"
    tuned = dataclasses.replace(own, optimizer=OptimizerSettings(name="adam"), loss="cross_entropy")
    assert len(next_step.closing(tuned, 0.4, 0.3)) == 1, "there is no better guess"
    in_memory = Settings(dataset=DatasetSettings(name="arrays"))
    assert len(next_step.closing(in_memory, 0.4, 0.3)) == 1, "there is nothing to type"
    function = Settings(dataset=DatasetSettings(name="mine.f"))
    assert "python run.py dataset.name=mine.f " in next_step.closing(function, 0.4, 0.3)[1].replace(
        program.train(), "python run.py"
    )


def test_each_command_can_be_typed() -> None:
    commands = [step.overrides for known in REFERENCES.values() for step in known.steps]
    for command in [*commands, next_step.FOR_OWN_DATA]:
        composition.settings_of(ROOT / "conf", command.split())


@pytest.mark.parametrize("name", sample(["digits", "mnist_5k"]))
def test_the_first_run_leads_to_a_good_one(run_py: Run, tmp_path: Path, name: str) -> None:
    """Each command is the last line of the one before it, and reaches what was promised."""
    arguments, promised = [f"dataset={name}"], 0.0
    for step in (*REFERENCES[name].steps, None):
        done = run_py(tmp_path, *arguments, "tracking.enabled=false")
        assert done.returncode == 0, done.stderr
        accuracy = re.search(r"^test accuracy (0\.\d{4})", done.stdout, re.M)
        assert accuracy
        assert float(accuracy[1]) >= promised - 0.01
        last = done.stdout.splitlines()[-1]
        assert last.startswith("next step     python run.py ") == (step is not None), done.stdout
        if step:
            arguments, promised = shlex.split(last, comments=True)[4:], step.accuracy
            assert arguments == [f"dataset={name}", *step.overrides.split()]
    assert "as good as the best settings" in done.stdout


@pytest.mark.long
def test_a_sweep_has_no_next_step(run_py: Run, tmp_path: Path) -> None:
    done = run_py(
        tmp_path, "-m", "dataset=digits", "epochs=1", "report=none", "seed=0,1", "tracking.enabled=false"
    )
    assert done.returncode == 0, done.stderr
    assert "next step" not in done.stdout
