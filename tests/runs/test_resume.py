"""Resuming: a resumed run equals an uninterrupted one, or is rejected with a reason."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import ROOT, Run, sample, start_program, train, wait_for_exit
from mlp_tape.config.settings import DatasetSettings, ModelSettings, Settings, TrackingSettings
from mlp_tape.errors import BrokenFileError, ConfigError, DataError
from mlp_tape.mlflow_backend import abandoned, relocation
from mlp_tape.runs import resume
from mlp_tape.runs.run import execute_run
from mlp_tape.runs.trainer import step_config
from mlp_tape.storage import checkpoint, journal, lock, run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import Command
from mlp_tape.tensors import network
from mlp_tape.training.batches import Batches

SMALL = Settings(
    lr=0.1,
    batch_size=96,  # 4,000 = 41 * 96 + 64
    epochs=4,
    shuffle=True,
    log_every=10,
    model=ModelSettings(hidden_sizes=[32]),
    dataset=DatasetSettings(name="mnist_5k"),
)
STEPS = 4 * 42


def train_in(directory: Path, settings: Settings, **changes: object) -> None:
    """Executes a run in its own directory, which also contains its database."""
    directory.mkdir(exist_ok=True)
    with contextlib.chdir(directory):
        execute_run(dataclasses.replace(settings, **changes), directory, Command([], []))


def state_of(directory: Path) -> tuple[bytes, list[tuple[str, int, float]], str]:
    """Returns the content of the weights file, all metric rows in MLflow, and the status."""
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    run = client.get_run(run_record.read(directory).run_id)
    rows = [
        (key, row.step, row.value)
        for key in sorted(run.data.metrics)
        for row in client.get_metric_history(run.info.run_id, key)
    ]
    return (directory / "weights.npz").read_bytes(), rows, run.info.status


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of four epochs that was never stopped."""
    directory = tmp_path_factory.mktemp("whole")
    train_in(directory, SMALL)
    return directory


@pytest.fixture(scope="module")
def half_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two epochs, which must not be modified."""
    directory = tmp_path_factory.mktemp("half") / "run"
    train_in(directory, SMALL, epochs=2)
    return directory


@pytest.fixture
def half(half_template: Path, tmp_path: Path) -> Path:
    """A copy of the directory of a run of two epochs, with its database."""
    directory = Path(shutil.copytree(half_template, tmp_path / "half"))
    relocation.relocate([directory], f"sqlite:///{directory / 'mlflow.db'}", print)
    return directory


def test_division_into_blocks_does_not_change_the_results() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100, 6), np.uint8)
    y = rng.integers(0, 3, 100).astype(np.int32)
    config = step_config("relu", "mse", "sgd", 255.0)
    settings = {"lr": 0.1, "batch_size": 7, "epochs": 3, "log_every": 4, "shuffle_seed": 5}

    def losses_of(params: network.Params, **where: int | None) -> list[float]:
        return [loss for block in train(params, x, y, config, **settings, **where) for loss in block.losses]

    uninterrupted = network.init_params([6, 5, 3], 0.1, 0)
    losses = losses_of(uninterrupted)
    assert len(losses) == 45
    for cut, pause in ((1, 2), (14, 3), (15, 44), (16, 1), (44, 7)):
        before = network.init_params([6, 5, 3], 0.1, 0)
        parts = losses_of(before, until=cut, pause_every=pause)
        after = network.as_params({name: param.numpy() for name, param in before.items()})
        parts += losses_of(after, first=cut, pause_every=pause)
        assert parts == losses
        for name, param in uninterrupted.items():
            np.testing.assert_array_equal(after[name].numpy(), param.numpy())
        x_cut, y_cut = Batches(x, y, 7, 5).at(cut)
        order = np.random.default_rng([5, cut // 15]).permutation(100)[cut % 15 * 7 :][:7]
        np.testing.assert_array_equal(x_cut, x[order])
        np.testing.assert_array_equal(y_cut, y[order])


def test_run_that_is_trained_further_equals_a_longer_run(whole: Path, half: Path) -> None:
    train_in(half, SMALL, resume="here")
    assert state_of(half) == state_of(whole)
    client = mlflow.MlflowClient(f"sqlite:///{half / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mlp_tape").experiment_id])
    assert len({row[1] for row in state_of(half)[1] if row[0] == "train/loss"}) == STEPS
    assert run.data.tags["command"] == "python run.py epochs=4"
    console = Path(client.download_artifacts(run.info.run_id, "console.log", str(half.parent))).read_text()
    told = re.findall(r"^(?:resumed after \d+|epoch \d  test|test accuracy)", console, re.M)
    first, second = ["epoch 0  test", "epoch 1  test"], ["epoch 2  test", "epoch 3  test"]
    assert told == [*first, "test accuracy", "resumed after 84", *second, "test accuracy"]
    newest, older = client.search_logged_models([run.info.experiment_id])
    assert (newest.tags["step"], older.tags["step"]) == ("167", "83")
    loaded = mlflow.pyfunc.load_model(newest.artifact_location)
    with np.load(half / "weights.npz") as weights:
        np.testing.assert_array_equal(loaded.unwrap_python_model().params["w1"], weights["w1"])


@pytest.mark.long
def test_untracked_run_can_be_tracked_when_it_is_resumed(whole: Path, tmp_path: Path) -> None:
    train_in(tmp_path, SMALL, epochs=2, tracking=TrackingSettings(enabled=False))
    train_in(tmp_path, SMALL, resume="here")
    assert state_of(tmp_path) == state_of(whole)


def leave_undamaged(directory: Path) -> None:
    pass


def flip_a_byte(directory: Path) -> None:
    path = directory / "checkpoints" / "step-000000084.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_step(directory: Path) -> None:
    path = directory / "checkpoints" / "step-000000084.json"
    path.write_text(path.read_text().replace('"step": 84', '"step": 85'))


def truncate_the_description(directory: Path) -> None:
    path = directory / "checkpoints" / "step-000000084.json"
    path.write_bytes(path.read_bytes()[:100])


def delete_the_arrays(directory: Path) -> None:
    (directory / "checkpoints" / "step-000000084.npz").unlink()


def damage_all_checkpoints(directory: Path) -> None:
    for path in (directory / "checkpoints").glob("*.npz"):
        path.write_bytes(b"PK")


def truncate_the_journal(directory: Path) -> None:
    """Removes rows before the last checkpoint, as a power failure may do."""
    journal = directory / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if line.startswith(b'["train/loss", 50,'))
    journal.write_bytes(b"".join(lines[:cut]) + lines[cut][:9])


@pytest.mark.parametrize(
    ("damage", "message"),
    sample(
        [
            (leave_undamaged, "resumed after 84 steps, at epoch 2  step 0"),
            (flip_a_byte, "checkpoint step-000000084 is damaged: its checksum differs"),
            (change_the_step, "checkpoint step-000000084 is damaged: its checksum differs"),
            (truncate_the_description, "checkpoint step-000000084 is damaged: "),
            (delete_the_arrays, "checkpoint step-000000084 has no arrays"),
            (damage_all_checkpoints, "resumed at the first step"),
        ],
    ),
)
def test_damaged_checkpoint_does_not_change_the_result(
    whole: Path, half: Path, capsys: pytest.CaptureFixture[str], damage: object, message: str
) -> None:
    damage(half)
    train_in(half, SMALL, resume="here")
    output = "".join(capsys.readouterr())
    assert message in output
    assert state_of(half) == state_of(whole)


@pytest.mark.long
def test_truncated_journal_is_completed_from_an_earlier_checkpoint(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(SMALL, tracking=TrackingSettings(enabled=False))
    train_in(tmp_path, settings, epochs=2)
    truncate_the_journal(tmp_path)
    train_in(tmp_path, SMALL, resume="here")
    assert (
        "checkpoint step-000000084 refers to rows that are missing from the journal"
        in capsys.readouterr().err
    )
    assert state_of(tmp_path) == state_of(whole)


def test_journal_is_recovered_up_to_its_last_complete_row(tmp_path: Path) -> None:
    rows = [Row("a", 0, 1.5, 7), Row("b", 0, 0.1, 8), Row("a", 1, 2.5, 9)]
    with Journal(tmp_path) as file:
        file.append(rows)
    for garbage in (b'["a", 2, 0.', b"\0" * 50, b'["a", 2, NaN, 5]\n', b'{"a": 2}\n', b'["a", 2, 1.5]\n'):
        with (tmp_path / "journal.jsonl").open("ab") as damaged:
            damaged.write(garbage)
        with Journal(tmp_path) as file:
            file.recover(delivered=0)
            assert journal.rows_after(tmp_path, 0, 10) == (rows, file.size)
            file.append([Row("a", 0, 9.9, 99), Row("a", 1, 9.9, 99), Row("b", 0, 9.9, 99)])
            assert journal.rows_after(tmp_path, 0, 10)[0] == rows
    with Journal(tmp_path) as file:
        file.recover(delivered=0)
        file.append([Row("b", 1, 0.2, 10)])
        assert [row.step for row in file.read("b")] == [0, 1]


def test_journal_with_damaged_delivered_rows_is_rejected(tmp_path: Path) -> None:
    with Journal(tmp_path) as file:
        file.append(Row("a", i, 1.5, 7) for i in range(10))
        size = file.size
    content = bytearray((tmp_path / "journal.jsonl").read_bytes())
    content[30] = 0
    (tmp_path / "journal.jsonl").write_bytes(content)
    with Journal(tmp_path) as file, pytest.raises(BrokenFileError, match=r"after byte 17"):
        file.recover(delivered=size)


def test_last_two_checkpoints_are_kept_and_read_without_pickle(tmp_path: Path) -> None:
    for at in (5, 7, 9):
        checkpoint.save(tmp_path / "c", at, {"w1": np.full((2, 3), at, np.float32)}, {"journal": at})
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == [f"step-00000000{at}.{kind}" for at in (7, 9) for kind in ("json", "npz")]
    assert [found.step for found in checkpoint.usable(tmp_path / "c", pytest.fail)] == [9, 7]
    about = json.loads((tmp_path / "c" / "step-000000009.json").read_text())
    assert (about["step"], about["arrays"]) == (9, {"w1": "float32[2, 3]"})
    checkpoint.save(tmp_path / "c", 10, {"w1": np.array([{}], dtype=object)}, {})
    with pytest.raises(BrokenFileError, match="damaged"):
        checkpoint.load(tmp_path / "c" / "step-000000010.json")


def test_different_data_are_rejected_before_the_run_is_modified(half: Path, tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}

    with np.errstate(), contextlib.chdir(half):
        from mlp_tape.data import datasets

        mnist_5k = datasets.load("mnist_5k")
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = {name: getattr(mnist_5k, name).copy() for name in names}
    arrays["x_train"][0, 0, 0] ^= 1
    np.savez(tmp_path / "other.npz", **arrays)
    before = contents()
    other = DatasetSettings(name="mnist_5k", path=str(tmp_path / "other.npz"))
    with pytest.raises(DataError, match="the data differ from those of the run"):
        train_in(half, SMALL, resume="here", dataset=other)
    assert contents() == before


@pytest.mark.long
def test_run_of_another_version_is_resumed_with_a_warning(
    half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_record.read(half)
    assert record.made_by["tensorflow"] == importlib.metadata.version("tensorflow")
    assert record.made_by["threads"] == str(len(os.sched_getaffinity(0)))
    record.made_by |= {"tensorflow": "2.20.0", "threads": "64"}
    record.save()
    train_in(half, SMALL, resume="here")
    warnings = capsys.readouterr().err
    assert "WARNING  The run was started with tensorflow 2.20.0, now 2." in warnings
    assert "; threads 64, now " in warnings
    assert state_of(half)[2] == "FINISHED"


def test_run_cannot_be_shortened(half: Path) -> None:
    with pytest.raises(ConfigError, match="epochs=1, but the run has already trained 2 epochs and 0 steps"):
        train_in(half, SMALL, resume="here", epochs=1)


@pytest.mark.concurrency
def test_directory_belongs_to_one_run_and_one_process(half: Path) -> None:
    with pytest.raises(ConfigError, match="is the directory of another run"):
        train_in(half, SMALL)
    program = (
        "import sys; from pathlib import Path; from mlp_tape.storage import lock\n"
        f"with lock.hold(Path({str(half)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert lock.is_held(half)
        with pytest.raises(ConfigError, match="another process is using"):
            train_in(half, SMALL, resume="here")
        other.kill()
    assert not lock.is_held(half)


@pytest.fixture(scope="module")
def existing_run(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory in which a run of one epoch was started from the command line, and its run id."""
    place = tmp_path_factory.mktemp("existing")
    done = run_py(place, "dataset=digits", "epochs=1", "lr=0.1")
    assert done.returncode == 0, done.stderr
    (directory,) = place.glob("outputs/*/*")
    return place, run_record.read(directory).run_id


REFUSED = [
    (["resume=last", "lr=0.2"], "lr=0.2, but the run has 0.1"),
    (
        ["resume=last", "seed=3", "model.hidden_sizes=[3]"],
        "seed=3, but the run has 0; model.hidden_sizes=[3]",
    ),
    (["resume=last", "dataset=mnist_5k"], "dataset.name=mnist_5k, but the run has digits"),
    (
        ["resume=last", "+experiment=tuned"],
        "lr=0.003, but the run has 0.1; shuffle=true, but the run has false",
    ),
    (["resume=last"], "the run in "),
    (["resume=last", "epochs=1"], "the run in "),
    (["resume=nope"], "resume=nope: no such run"),
    (["resume="], "resume=: expected the id of a run"),
    (["-m", "resume=last"], "resume=... resumes a single run"),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "what"), sample(REFUSED, REFUSED[0]), ids=[" ".join(case[0]) for case in REFUSED]
)
def test_changed_settings_are_rejected_when_resuming(
    run_py: Run, existing_run: tuple[Path, str], arguments: list[str], what: str
) -> None:
    place, _ = existing_run
    before = sorted(place.rglob("*"))
    done = run_py(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 2
    assert sorted(place.rglob("*")) == before


@pytest.mark.long
def test_run_is_found_by_id_directory_or_last(
    run_py: Run, existing_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run_id = existing_run
    (directory,) = place.glob("outputs/*/*")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    monkeypatch.chdir(place)
    for which in (run_id, "last", str(directory), str(directory.relative_to(place))):
        assert resume.find(which, uri) == directory
    done = run_py(
        tmp_path, f"resume={run_id}", "epochs=2", "lr=0.1", "dataset=digits", MLFLOW_TRACKING_URI=uri
    )  # from another directory, found through MLflow
    assert done.returncode == 0, done.stderr
    assert "resumed after 12 steps, at epoch 1  step 0" in done.stdout
    assert f"directory     {directory}" in done.stdout
    assert not list(tmp_path.iterdir())
    assert list(place.glob("outputs/*/*")) == [directory]


def test_search_for_a_run_does_not_create_a_database(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "resume=0123456789abcdef0123456789abcdef")
    assert (done.returncode, done.stdout) == (2, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.concurrency
def test_killed_run_is_closed_at_the_next_start(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    program = start_program(tmp_path, offline, "epoch 20 ", "dataset=digits", "report=none", "epochs=1000000")
    (directory,) = tmp_path.glob("outputs/*/*")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_id = run_record.read(directory).run_id
    next_one = run_py(tmp_path, "dataset=digits", "epochs=1", "report=none")
    assert "was left RUNNING" not in next_one.stdout  # its process is still running
    assert client.get_run(run_id).info.status == "RUNNING"
    program.kill()
    program.communicate()
    next_one = run_py(tmp_path, "dataset=digits", "epochs=1", "report=none")
    assert re.search(
        rf"^{run_id} \(.*\) was left RUNNING by a process that no longer exists; "
        rf"to resume: python run.py resume={run_id}$",
        next_one.stdout,
        re.M,
    )
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "its process no longer exists")
    page = run.data.tags["mlflow.note.content"]
    assert "Status KILLED: its process no longer exists" in page
    assert f"python run.py resume={run_id}" in page
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert list(abandoned.close_dead(uri, "mlp_tape")) == []


@pytest.mark.long
@pytest.mark.concurrency
def test_second_signal_ends_the_process_immediately(offline: dict[str, str], tmp_path: Path) -> None:
    program = start_program(tmp_path, offline, "epoch 20 ", "dataset=digits", "report=none", "epochs=1000000")
    program.send_signal(signal.SIGSTOP)
    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGCONT)
    wait_for_exit(program)
    assert program.returncode in (-signal.SIGINT, -signal.SIGTERM, 130, 143)
