"""Methods and their settings: equal results in both engines, and bit-identical resumption."""

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, SMALL_PIPE, Run, sample, start_program, wait_for_exit
from mlp_tape.cli import composition
from mlp_tape.config.settings import OptimizerSettings, non_null
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, DataError
from mlp_tape.runs.trainer import Trainer
from mlp_tape.storage import journal, run_record
from mlp_tape.storage.checkpoint import Checkpoint

CHOICES = [
    "loss=cross_entropy",
    "label_smoothing=0.1",
    "l2=0.001",
    "clip_norm=0.05",
    "optimizer=momentum",
    "optimizer=nesterov",
    "optimizer=rmsprop lr=0.001",
    "optimizer=adam lr=0.001",
    "optimizer=adamw lr=0.001",
    "schedule=step schedule.every_epochs=1",
    "schedule=exponential",
    "schedule=cosine",
    "schedule=warmup",
    "schedule=one_cycle",
    "schedule=cosine schedule.warmup_epochs=0.5",
    "model.init=he",
    "model.init=glorot",
    "model.init=lecun",
    "model.init=orthogonal",
    "model.activation=leaky_relu",
    "model.activation=gelu",
    "model.activation=silu",
    "model.activation=tanh",
    "model.activation=sigmoid",
    "model.dropout=0.3",
    "augment.shift=2 augment.rotate=10",
    "shuffle=true",
    "precision=float64",
    "precision=bfloat16",
]
EVERYTHING = (
    "optimizer=adamw schedule=one_cycle lr=0.002 loss=cross_entropy label_smoothing=0.1 l2=0.0001 "
    "clip_norm=1.0 model.dropout=0.2 model.init=he model.activation=gelu shuffle=true augment.shift=1 "
    "augment.rotate=10"
)
EACH = sample([*CHOICES, EVERYTHING], "shuffle=true")
# Settings for which a resumed run must restore optimizer state, random numbers, order or precision.
STATEFUL = ["optimizer=momentum", "optimizer=rmsprop lr=0.001", "optimizer=adam lr=0.001", *CHOICES[-4:]]
SMALL = ["dataset=digits", "model.hidden_sizes=[24,16]", "lr=0.1", "batch_size=96", "epochs=2", "log_every=4"]


def trainer_of(digits: Dataset, *overrides: str) -> Trainer:
    settings = composition.settings_of(ROOT / "conf", [*SMALL, *overrides])
    return Trainer(settings, digits)


def losses_of(trainer: Trainer) -> np.ndarray:
    return np.concatenate([block.losses for block in trainer.train(trainer.state_at(None))])


@pytest.mark.parametrize("choice", EACH)
def test_both_engines_agree_for_each_choice(digits: Dataset, choice: str) -> None:
    default = losses_of(trainer_of(digits))
    eager, compiled = (
        losses_of(trainer_of(digits, *choice.split(), f"engine={engine}")) for engine in ("eager", "compiled")
    )
    tolerance = 0.02 if "bfloat16" in choice else 2e-4
    np.testing.assert_allclose(compiled, eager, rtol=tolerance, atol=tolerance / 10)
    assert not np.array_equal(compiled, default), "the choice has no effect"
    assert compiled[-8:].mean() < compiled[:4].mean() or "bfloat16" in choice


@pytest.mark.parametrize("choice", sample([*STATEFUL, EVERYTHING], "shuffle=true", EVERYTHING))
def test_resumed_training_is_bit_identical_for_each_choice(digits: Dataset, choice: str) -> None:
    trainer = trainer_of(digits, *choice.split())
    whole = trainer.state_at(None)
    losses = np.concatenate([block.losses for block in trainer.train(whole)])
    for cut in (1, 17):
        before = trainer.state_at(None)
        parts = [block.losses for block in trainer.train(before, until=cut)]
        after = trainer.state_at(Checkpoint(cut, before.arrays(), {}))
        parts += [block.losses for block in trainer.train(after)]
        np.testing.assert_array_equal(np.concatenate(parts), losses)
        for name, array in whole.arrays().items():
            np.testing.assert_array_equal(after.arrays()[name], array, err_msg=name)


def test_learning_rate_of_each_logged_step_is_recorded(digits: Dataset) -> None:
    trainer = trainer_of(digits, "schedule=cosine", "log_every=1")
    rates = [block.statistics["train/lr"] for block in trainer.train(trainer.state_at(None))]
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(30) / 30))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert trainer.rate.at(7) == pytest.approx(expected[7], rel=1e-6)
    constant = trainer_of(digits, "log_every=1")
    logged = [block.statistics["train/lr"] for block in constant.train(constant.state_at(None))]
    assert logged == [pytest.approx(0.1)] * 30


@pytest.mark.long
def test_stopped_and_resumed_run_with_all_methods_equals_an_uninterrupted_one(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*SMALL, *EVERYTHING.split(), "epochs=100", "validation_fraction=0.2"]
    arguments += ["tracking.enabled=false"]
    done = run_py(tmp_path, *arguments, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stdout + done.stderr
    program = start_program(
        tmp_path, offline, "epoch 9 ", *arguments, "hydra.run.dir=stopped", pipe=SMALL_PIPE
    )
    program.send_signal(signal.SIGINT)
    output = wait_for_exit(program)
    assert program.returncode == 130, output
    before = len(list(journal.rows(tmp_path / "stopped", "train/loss")))
    assert 0 < before < 12 * 100
    done = run_py(tmp_path, "resume=stopped")
    assert done.returncode == 0, done.stdout + done.stderr
    for key in ("train/", "validation/", "test/", "params/"):
        rows = [
            sorted((row.key, row.step, row.value) for row in journal.rows(tmp_path / name, key))
            for name in ("whole", "stopped")
        ]
        assert rows[0] == rows[1]
        assert rows[0]
    weights = [np.load(tmp_path / name / "weights.npz") for name in ("whole", "stopped")]
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


@pytest.mark.long
def test_early_stopping_ends_with_the_best_weights(run_py: Run, tmp_path: Path) -> None:
    arguments = [*SMALL, "optimizer=adam", "lr=0.02", "validation_fraction=0.2", "tracking.enabled=false"]
    stopping = ["epochs=100", "stopping.patience=3"]
    done = run_py(tmp_path, *arguments, *stopping, "hydra.run.dir=stopped")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [row.value for row in journal.rows(tmp_path / "stopped", "validation/accuracy")]
    losses = [row.value for row in journal.rows(tmp_path / "stopped", "validation/loss")]
    best = min(range(len(found)), key=lambda i: (-found[i], losses[i]))
    so_far = [row.value for row in journal.rows(tmp_path / "stopped", "validation/best_accuracy")]
    assert so_far == np.maximum.accumulate(found).tolist()
    assert len(found) == best + 1 + 3 < 100
    tested = list(journal.rows(tmp_path / "stopped", "test/accuracy"))
    assert [row.step for row in tested] == [len(found) * 12 - 1]  # once, after the selection
    record = run_record.read(tmp_path / "stopped")
    assert record.results["validation/accuracy"] == found[best]
    assert record.chosen_by() == found[best]
    assert record.best_epochs == best + 1

    done = run_py(tmp_path, *arguments, f"epochs={best + 1}", "hydra.run.dir=until_best")
    assert done.returncode == 0, done.stdout + done.stderr
    weights = [np.load(tmp_path / name / "weights.npz") for name in ("stopped", "until_best")]
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    assert run_record.read(tmp_path / "until_best").results["test/accuracy"] == tested[0].value


def test_validation_images_are_held_out_from_training(digits: Dataset) -> None:
    split = datasets.with_validation(digits, 0.1)
    assert len(split.x_validation) == 144
    assert len(split.x_train) + len(split.x_validation) == len(digits.x_train)
    rows = np.concatenate([split.x_train, split.x_validation]).reshape(len(digits.x_train), -1)
    assert sorted(map(bytes, rows)) == sorted(map(bytes, digits.x_train.reshape(len(rows), -1)))
    assert datasets.with_validation(digits, 0.1) is split
    assert datasets.with_validation(digits, 0.0) is digits
    assert len(set(split.y_validation.tolist())) == 10
    one = dataclasses.replace(digits, x_train=digits.x_train[:1], y_train=digits.y_train[:1])
    with pytest.raises(DataError, match="leaves none to train on"):
        datasets.with_validation(one, 0.5)


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["+optimizer.momentum=0.9"], "optimizer.momentum is not a setting of sgd"),
        (["optimizer.name=adam"], "optimizer.beta_1 has no value, but adam requires it"),
        (["+schedule.final=0.1"], "schedule.final is not a setting of constant"),
        (["optimizer=adam", "optimizer.beta_1=1"], "expected a number from 0 to below 1"),
        (["schedule=one_cycle", "schedule.rising=1"], "expected a number above 0 and below 1"),
        (["stopping.patience=3"], "requires validation images"),
        (["validation_fraction=1"], "expected a number from 0 to below 1"),
        (["augment.rotate=200"], "expected a number up to 180"),
        (["model.activation=mish"], "expected one of: relu"),
        (["loss=mine"], "or your own function, such as module.name"),
        (["precision=float16"], "expected one of: float32, bfloat16, float64"),
        (["clip_norm=0"], "expected a finite number above 0, or null"),
    ],
)
def test_invalid_choice_is_rejected(overrides: list[str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composition.settings_of(ROOT / "conf", overrides)
    assert what in caught.value.what
    assert caught.value.hint


@pytest.mark.long
def test_run_with_a_schedule_of_fixed_length_cannot_be_extended(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, *SMALL, "schedule=cosine", "tracking.enabled=false", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    done = run_py(tmp_path, "resume=run", "epochs=3")
    assert done.returncode == 2
    assert "epochs=3, but the run's schedule=cosine ends with its 2 epochs" in done.stderr


def test_augmentation_rejects_data_that_are_not_images(run_py: Run, tmp_path: Path) -> None:
    flat = {
        f"{kind}_{split}": np.zeros((20, 4), np.uint8) if kind == "x" else np.arange(20) % 2
        for kind in "xy"
        for split in ("train", "test")
    }
    np.savez(tmp_path / "flat.npz", **flat)
    done = run_py(tmp_path, "dataset=arrays", "dataset.path=flat.npz", "augment.shift=1")
    assert done.returncode == 2
    assert "augment requires images of shape [height, width]" in done.stderr


def test_non_null_omits_settings_that_are_null() -> None:
    assert non_null(OptimizerSettings(name="momentum", momentum=0.5)) == {
        "name": "momentum",
        "momentum": 0.5,
    }
