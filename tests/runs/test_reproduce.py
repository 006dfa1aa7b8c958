"""Reproduction of runs, from their directories and from MLflow alone, also after evidence was changed."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mlp_tape as api
from conftest import ROOT, Run, Server, kill_after_limit, mlp_tape, runs_in, sample, sync_unsent
from mlp_tape.cli import replay, reproduction, tools
from mlp_tape.runs import recorded, recorded_data, reproduce
from mlp_tape.storage import checksums, run_record
from mlp_tape.system import program, provenance, redaction
from mlp_tape.system.provenance import Environment
from sweep_helpers import sweep_directory

QUICK = ["dataset=digits", "epochs=2", "model.hidden_sizes=[16]", "lr=0.1", "report=light"]
UNTRACKED = [*QUICK, "tracking.enabled=false"]


def reproduced(
    directory: Path, environment: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    return mlp_tape(directory, environment, "reproduce", *arguments)


def verdict(done: "subprocess.CompletedProcess[str]") -> str:
    """Returns the verdict, once it has been checked that it agrees with the exit code."""
    found = re.search(r"^verdict +(.*)$", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    equal = found[1].startswith(("bit-identical", "equal")) and "problems" not in found[1]
    assert done.returncode == (0 if equal else 1), done.stdout
    return found[1]


def trained(run_py: Run, directory: Path, *arguments: str) -> Path:
    """Runs the program, and returns the directory of the run."""
    before = set(directory.glob("outputs/*/*"))
    done = run_py(directory, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (new,) = set(directory.glob("outputs/*/*")) - before
    return new


CASES = [
    ["optimizer=adam", "lr=0.01", "loss=cross_entropy", "shuffle=true"],
    ["+experiment=tuned", "dataset=digits", "augment.shift=1", "epochs=2", "model.hidden_sizes=[16]"],
    ["engine=eager", "model.dropout=0.2", "precision=bfloat16"],
    ["stopping.patience=1", "validation_fraction=0.2", "epochs=20", "lr=0.5", "optimizer=momentum"],
    ["checkpoint.every_steps=5", "schedule=cosine", "l2=0.001", "clip_norm=0.5", "report=none"],
]


@pytest.mark.parametrize("typed", sample(CASES), ids=" ".join)
def test_a_run_is_reproduced_bit_for_bit(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = api.train(api.settings(*UNTRACKED, *typed), show=False)
    (found,) = recorded.find(str(run.directory), "")
    assert found.problems == []
    place, dataset = recorded_data.find(found, None, print)
    settings = reproduce.new_settings(found, dataclasses.replace(found.settings, dataset=place))
    done = reproduce.reproduce(found, settings, dataset, run_record.Command([], []), print)
    assert (done.verdict, done.is_equal, done.problems, done.explanation) == ("bit-identical", True, [], [])
    again = api.find(done.directory)
    assert all(np.array_equal(again.params[name], run.params[name]) for name in run.params)
    assert checksums.read(run.directory / "checksums.jsonl") == checksums.read(
        done.directory / "checksums.jsonl"
    )


def test_the_verdict_is_on_the_pages_of_both_runs(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    trained(run_py, tmp_path, *QUICK)
    done = reproduced(tmp_path, offline, "last")
    assert verdict(done) == "bit-identical", done.stdout
    assert "environment   as recorded" in done.stdout
    new, old = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    if "reproduces" in old.data.tags:
        new, old = old, new
    assert new.data.tags["reproduces"] == old.info.run_id
    assert new.data.tags["verdict"] == "bit-identical"
    assert old.data.tags["reproduced"] == f"bit-identical, by {new.info.run_id}"
    assert new.info.status == "FINISHED" and new.info.run_name.startswith("reproduction of")
    assert f"python -m mlp_tape reproduce {old.info.run_id}\n" in old.data.tags["mlflow.note.content"]


@pytest.mark.long
def test_a_run_on_a_server_is_reproduced_with_nothing_else(
    run_py: Run, offline: dict[str, str], server: Server, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    trained(run_py, theirs, *QUICK, f"tracking.uri={server.url}", "tracking.experiment=shared")
    (run,) = runs_in(server.url, "shared")
    shutil.rmtree(theirs)
    home = ours / "home"
    home.mkdir()
    other = offline | {"HOME": str(home)}
    done = reproduced(ours, other, f"runs:/{run.info.run_id}", "--uri", server.url)
    assert verdict(done) == "bit-identical", done.stdout
    done = reproduced(ours, other, run.info.run_id, "--uri", server.url, "--epochs", "1")
    assert verdict(done) == "bit-identical", done.stdout
    assert "of 2, as no more were to be compared" in done.stdout


@pytest.mark.long
def test_jobs_of_a_sweep_a_pruned_one_too_are_reproduced(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    search = ["hydra/sweeper=optuna", "n_trials=8", "lr=tag(log,interval(0.0001,0.5))", "model.dropout=0,0.3"]
    pruned = ["hydra.sweeper.pruner.n_startup_trials=1", "pruner=median"]
    done = run_py(tmp_path, "-m", *QUICK, "epochs=4", *search, *pruned)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [
        run_record.read(path)
        for path in run_record.directories(sweep_directory(tmp_path))
        if path.name.isdigit()
    ]
    assert any(job.pruned for job in jobs), "the test needs a pruned job"
    done = reproduced(tmp_path, offline, str(sweep_directory(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("verdict       bit-identical\n") == 8
    assert "8 of 8 jobs reproduced" in done.stdout
    (parent,) = [
        run for run in runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}") if "best.run_id" in run.data.tags
    ]
    shutil.rmtree(tmp_path / "multirun")
    done = reproduced(tmp_path, offline, parent.info.run_id, "--sample", "2")
    assert done.stdout.count("verdict       bit-identical\n") == 2, done.stdout + done.stderr


@pytest.mark.long
def test_a_resumed_run_is_reproduced(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    run = trained(run_py, tmp_path, *QUICK, "validation_fraction=0.2")
    done = run_py(tmp_path, "resume=last", "epochs=4")
    assert done.returncode == 0, done.stderr
    assert verdict(reproduced(tmp_path, offline, str(run))) == "bit-identical"


@pytest.mark.long
def test_a_diverged_run_is_reproduced(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    done = run_py(tmp_path, *QUICK, "lr=1e30")
    assert done.returncode == 1, done.stdout
    done = reproduced(tmp_path, offline, "last")
    assert verdict(done) == "bit-identical", done.stdout
    assert "the training diverged: the loss is" in done.stdout


def change_database(directory: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(directory / "mlflow.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def artifacts(directory: Path, run_id: str) -> Path:
    (found,) = directory.glob(f"mlruns/*/{run_id}/artifacts")
    return found


def tampered_row(directory: Path, run_id: str) -> str:
    change_database(
        directory,
        "UPDATE metrics SET value = value + 0.001 WHERE run_uuid=? AND key='train/loss' AND step=5",
        run_id,
    )
    return r"differs from MLflow: step 5  train/loss  recorded .*, here "


def removed_row(directory: Path, run_id: str) -> str:
    change_database(
        directory, "DELETE FROM metrics WHERE run_uuid=? AND key='test/accuracy' AND step=11", run_id
    )
    return r"differs from MLflow: step 11  test/accuracy  not recorded, here "


def tampered_param(directory: Path, run_id: str) -> str:
    change_database(directory, "UPDATE params SET value='0.2' WHERE run_uuid=? AND key='lr'", run_id)
    return r"problem +MLflow: the param lr is 0.2, but config.yaml has 0.1"


def tampered_weight(directory: Path, run_id: str) -> str:
    path = artifacts(directory, run_id) / "weights.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["w1"][3, 7] = np.nextafter(arrays["w1"][3, 7], np.float32(9))
    np.savez(path, **arrays)
    return r"problem +MLflow: weights.npz has another w1: 1 value of 1,024, the first at \[3, 7\]: recorded"


def missing_artifact(directory: Path, run_id: str) -> str:
    (artifacts(directory, run_id) / "weights.npz").unlink()
    return r"problem +MLflow: weights.npz is missing"


def missing_checksums(directory: Path, run_id: str) -> str:
    (artifacts(directory, run_id) / "checksums.jsonl").unlink()
    return r"problem +MLflow: checksums.jsonl is missing"


def tampered_checksum(directory: Path, run_id: str) -> str:
    path = artifacts(directory, run_id) / "checksums.jsonl"
    step, found = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps([step, found | {"b1": "0" * 64}]) + "\n")
    return r"differs from MLflow: step 12  weights  b1 with another SHA-256"


def damaged_weights(directory: Path, run_id: str) -> str:
    (artifacts(directory, run_id) / "weights.npz").write_bytes(b"rubbish")
    return r"problem +MLflow: weights.npz is damaged"


TAMPERINGS = [
    tampered_row,
    tampered_weight,
    missing_artifact,
    removed_row,
    tampered_param,
    missing_checksums,
    tampered_checksum,
    damaged_weights,
]


@pytest.fixture(scope="module")
def finished(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with a finished run, and its id."""
    directory = tmp_path_factory.mktemp("finished")
    trained(run_py, directory, *QUICK)
    (run,) = runs_in(f"sqlite:///{directory / 'mlflow.db'}")
    return directory, run.info.run_id


@pytest.mark.long
@pytest.mark.parametrize(
    ("has_directory", "tamper"),
    sample([(False, each) for each in TAMPERINGS]) + sample([(True, each) for each in TAMPERINGS[:2]]),
    ids=lambda each: each.__name__ if callable(each) else ["elsewhere", "here"][each],
)
def test_changed_evidence_is_found_and_named(
    finished: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tamper: Callable[[Path, str], str],
    has_directory: bool,
) -> None:
    original, run_id = finished
    place = tmp_path / "copy"
    shutil.copytree(original, place)
    with sqlite3.connect(place / "mlflow.db") as connection:  # artifact paths are absolute
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(original), str(place))
            )
    connection.close()
    for path in place.glob("outputs/*/*/*.json"):
        path.write_text(path.read_text().replace(str(original), str(place)))
    if not has_directory:
        shutil.rmtree(place / "outputs")
    expected = tamper(place, run_id)
    monkeypatch.chdir(place)
    code = reproduction.reproduce(tools._parsed(["reproduce", run_id]))
    printed = capfd.readouterr().out
    assert re.search(expected, printed), printed
    assert code == 1 and re.search("^verdict ", printed, re.M)
    runs = runs_in(f"sqlite:///{place / 'mlflow.db'}")
    (shown,) = [run.data.tags["verdict"] for run in runs if "verdict" in run.data.tags]
    assert shown != "bit-identical", "the page of the new run says so, too"


@pytest.mark.long
def test_without_its_settings_a_run_is_not_reproduced(
    finished: tuple[Path, str], offline: dict[str, str], tmp_path: Path
) -> None:
    directory, run_id = finished
    kept = artifacts(directory, run_id) / "config.yaml"
    text = kept.read_text()
    kept.unlink()
    try:
        done = reproduced(tmp_path, offline, run_id, "--uri", f"sqlite:///{directory / 'mlflow.db'}")
    finally:
        kept.write_text(text)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert f"MLflow has no config.yaml of the run {run_id}" in done.stderr


def test_other_data_of_the_same_shape_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((90, 4), np.float32), "y_train": np.arange(90) % 3}
    arrays |= {"x_test": rng.random((30, 4), np.float32), "y_test": np.arange(30) % 3}
    np.savez("own.npz", **arrays)
    run = api.train(api.settings(*UNTRACKED, "dataset=arrays", "dataset.path=own.npz"), show=False)
    arrays["x_train"][7, 1] += 0.5
    np.savez("other.npz", **arrays)
    (found,) = recorded.find(str(run.directory), "")
    with pytest.raises(api.DataError, match=r"the data of the run have SHA-256 .*other.npz has SHA-256"):
        recorded_data.find(found, "other.npz", print)
    shutil.move("own.npz", "moved.npz")
    with pytest.raises(api.DataError, match=r"own.npz"):
        recorded_data.find(found, None, print)
    assert recorded_data.find(found, "moved.npz", print)[1].sha256 == found.data_sha256


def test_data_are_found_at_the_recorded_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a named data set of a cache that is gone, as for another person on the same machine."""
    monkeypatch.chdir(tmp_path)
    run = api.train(api.settings(*UNTRACKED), show=False)
    (found,) = recorded.find(str(run.directory), "")
    _, dataset = recorded_data.find(found, None, print)
    np.savez(
        "kept.npz", **{name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    )
    elsewhere = dataclasses.replace(found.settings.dataset, name="arrays", path=str(tmp_path / "gone.npz"))
    moved = dataclasses.replace(
        found,
        settings=dataclasses.replace(found.settings, dataset=elsewhere),
        data_source=str(tmp_path / "kept.npz"),
    )
    assert recorded_data.find(moved, None, print)[0].path == str(tmp_path / "kept.npz")


@pytest.mark.long
def test_a_changed_update_rule_is_noticed_at_the_first_step(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    run = trained(run_py, tmp_path, *QUICK, "optimizer=momentum")
    for name in ("mlp_tape", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "mlp_tape" / "tensors" / "optimizers.py"
    rule = path.read_text()
    path.write_text(
        rule.replace("momentum * velocity[name] + lr * g)", "momentum * velocity[name] + 0.99 * lr * g)")
    )
    assert path.read_text() != rule
    done = reproduced(tmp_path, offline | {"PYTHONPATH": str(tmp_path)}, str(run), "--explain")
    assert verdict(done) == "different from step 0 on", done.stdout
    assert "explanation   step 0 is the first that differs, in the updates (updates/" in done.stdout


@pytest.mark.long
@pytest.mark.soak
def test_a_run_is_reproduced_with_the_code_of_its_commit_and_its_uncommitted_changes(
    offline: dict[str, str], tmp_path: Path
) -> None:
    """The environment with the recorded versions is installed by pip."""
    clone, here = tmp_path / "clone", tmp_path / "here"
    here.mkdir()
    subprocess.run(["git", "clone", "-q", f"file://{ROOT}", str(clone)], check=True)
    rule, new = clone / "mlp_tape" / "tensors" / "optimizers.py", "momentum * velocity[name] + 0.99 * lr * g)"
    text = rule.read_text()
    rule.write_text(text.replace("momentum * velocity[name] + lr * g)", new))
    environment = os.environ | {"PYTHONPATH": str(clone), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    train = [sys.executable, str(clone / "run.py"), *QUICK, "optimizer=momentum"]
    subprocess.run(train, cwd=here, env=environment, check=True)
    (run,) = here.glob("outputs/*/*")
    rule.write_text(text)
    commit = ["-c", "user.name=me", "-c", "user.email=me@localhost", "commit", "-q", "--allow-empty"]
    subprocess.run(["git", "-C", str(clone), *commit, "-m", "later"], check=True)

    def call(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "mlp_tape", "reproduce", str(run), *options]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)

    done = call()
    assert verdict(done) == "different from step 0 on", done.stdout + done.stderr
    assert "uncommitted changes" in done.stdout and "commit" in done.stdout
    done = call("--at-commit")
    assert verdict(done) == "bit-identical", done.stdout + done.stderr


@pytest.mark.long
def test_another_number_of_threads_is_told_and_no_failure(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    run = trained(run_py, tmp_path, *QUICK, "model.hidden_sizes=[256,128]", "epochs=4")
    done = reproduced(tmp_path, offline | {"TF_NUM_INTRAOP_THREADS": "7"}, str(run))
    assert re.search(r"^threads +\d+ +7$", done.stdout, re.M), done.stdout
    assert verdict(done).startswith(("bit-identical", "equal to within rounding"))


@pytest.mark.long
def test_a_function_of_ones_own_that_is_gone_is_named(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    module = tmp_path / "mine.py"
    module.write_text(
        "import tensorflow as tf\n\n\ndef huber(y, logits):\n"
        "    return tf.reduce_mean(tf.square(y - logits))\n"
    )
    trained(run_py, tmp_path, *QUICK, "loss=mine.huber")
    assert verdict(reproduced(tmp_path, offline, "last")) == "bit-identical"
    module.unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    done = reproduced(tmp_path, offline, "last")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert "mine.huber cannot be imported" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reproduction_that_is_stopped_has_no_verdict(
    run_py: Run, offline: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    trained(run_py, tmp_path, "dataset=mnist_5k", "epochs=60", "report=none")
    program = subprocess.Popen(
        [sys.executable, "-m", "mlp_tape", "reproduce", "last"],
        cwd=tmp_path,
        env=offline | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    with kill_after_limit(program):
        for line in program.stdout:
            if line.startswith("epoch 2  "):
                program.send_signal(number)
                break
        output = program.stdout.read()
        assert program.wait() == 128 + number, output
    assert "verdict" not in output
    sync_unsent(tmp_path, offline)
    runs = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    assert not any({"verdict", "reproduced"} & set(run.data.tags) for run in runs)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["nothing"], "no run nothing below"),
        (["runs:/0123"], "no run 0123 below"),
        (["last"], "no run last below"),
        (["x", "--epochs", "0"], "expected an integer from 1"),
    ],
)
def test_wrong_commands_are_answered(
    offline: dict[str, str], tmp_path: Path, typed: list[str], message: str
) -> None:
    done = reproduced(tmp_path, offline, *typed)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "name", "expected"),
    [
        ("reproduce last --uri sqlite:///a.db dataset.path=a.npz", "settings", ["dataset.path=a.npz"]),
        ("reproduce dataset.path=a.npz --epochs 1 tracking.uri=x last", "run", "dataset.path=a.npz"),
        ("replay last --out a.npz step=3", "settings", ["step=3"]),
        ("compare a --png a.png b", "runs", ["a", "b"]),
        ("sync a --uri sqlite:///a.db b", "runs", ["a", "b"]),
        ("walk lr=0.1 epochs=2", "settings", ["lr=0.1", "epochs=2"]),
        ("predict run --uri sqlite:///a.db a.npz b.npz", "files", [Path("a.npz"), Path("b.npz")]),
    ],
)
def test_options_may_stand_anywhere(typed: str, name: str, expected: object) -> None:
    assert getattr(tools._parsed(typed.split()), name) == expected


def test_a_step_is_replayed_with_the_settings_of_its_run() -> None:
    with pytest.raises(api.ConfigError, match=r"lr=0\.2: a step is replayed with the settings of its run"):
        replay.replay(tools._parsed(["replay", "last", "step=3", "lr=0.2"]))


def test_settings_of_the_run_may_not_be_changed() -> None:
    with pytest.raises(api.ConfigError, match="reproduced with its own settings"):
        reproduction._with_overrides(api.settings(), ["lr=0.2"])


# Replay


def random_settings(rng: random.Random) -> list[str]:
    """Returns settings of a short run, most of which change what a step computes."""
    rule = rng.choice(["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
    found = [f"optimizer={rule}", f"batch_size={rng.choice([50, 128, 400])}", f"seed={rng.randrange(1000)}"]
    found += [
        f"lr={10 ** rng.uniform(-4, -2):.5f}",
        f"engine={rng.choice(['compiled', 'compiled', 'eager'])}",
    ]
    found += [f"loss={rng.choice(['mse', 'cross_entropy'])}", f"shuffle={rng.choice(['true', 'false'])}"]
    found += [f"model.dropout={rng.choice(['0', '0.3'])}", f"log_every={rng.choice([1, 7, 100])}"]
    found += [f"precision={rng.choice(['float32', 'float32', 'bfloat16', 'float64'])}"]
    found += [f"schedule={rng.choice(['constant', 'cosine', 'one_cycle'])}"]
    return found + rng.choice(
        [[], ["augment.shift=1"], ["l2=0.001", "clip_norm=0.1"], ["label_smoothing=0.1"]]
    )


@pytest.mark.long
def test_replay_gives_the_loss_of_the_journal_for_any_settings_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MLP_TAPE_PAIRS=200` sets the number of pairs of settings and step."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    for _ in range(int(os.environ.get("MLP_TAPE_PAIRS", "20")) // 4):
        typed = random_settings(rng)
        run = api.train(api.settings(*UNTRACKED, *typed, "report=none", "epochs=3"), show=False)
        losses = run.history["train/loss"]
        for step in [0, *(rng.randrange(len(losses)) for _ in range(3))]:
            tensors = api.replay(run, step)
            assert float(tensors["loss"]) == losses[step], (typed, step)


def test_replay_returns_every_tensor_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = api.train(api.settings(*UNTRACKED, "optimizer=momentum"), show=False)
    first, second = api.replay(run, 4), api.replay(str(run.directory), 5)
    assert list(first)[:4] == ["images", "labels", "w1", "b1"]
    assert first["images"].shape == (128, 8, 8) and first["x"].shape == (128, 64)
    for name in ("w1", "b1", "w2", "b2"):
        np.testing.assert_array_equal(first[f"{name} after the update"], second[name])
        np.testing.assert_array_equal(
            first[f"velocity/{name} after the update"],
            second[f"velocity/{name}"],
            err_msg="the optimizer's memory",
        )
        np.testing.assert_array_equal(first[name] - first[f"update of {name}"], second[name])
        assert first[f"gradient of {name}"].shape == first[name].shape
    np.testing.assert_allclose(first["logits"], first["h1"] @ first["w2"] + first["b2"], rtol=1e-5, atol=1e-5)
    with pytest.raises(api.ConfigError, match="the run has 24 steps"):
        api.replay(run, 24)


@pytest.mark.long
def test_replay_shows_a_step_and_writes_it(run_py: Run, offline: dict[str, str], tmp_path: Path) -> None:
    trained(run_py, tmp_path, *QUICK)
    files = ["--out", "step.npz", "--png", "step.png", "--notebook", "step.ipynb"]
    done = mlp_tape(tmp_path, offline, "replay", "last", "step=17", *files)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert re.search(r"^loss +0\.\d+, as recorded$", done.stdout, re.M), done.stdout
    assert "step          17: epoch 1, step 5, lr 0.1" in done.stdout
    with np.load(tmp_path / "step.npz") as archive:
        assert {"images", "gradient of w1", "w2 after the update"} <= set(archive)
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    cells = json.loads((tmp_path / "step.ipynb").read_text())["cells"]
    program = "\n".join(cell["source"] for cell in cells[1:3] if cell["cell_type"] == "code")
    shown = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=offline | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "gradient of w1" in shown.stdout, shown.stderr
    (run,) = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    shutil.rmtree(tmp_path / "outputs")
    done = mlp_tape(tmp_path, offline, "replay", f"runs:/{run.info.run_id}", "step=17")
    assert (done.returncode, "as recorded" in done.stdout) == (0, True), done.stdout + done.stderr


# What is recorded


def test_the_environment_is_read_as_it_was_written() -> None:
    found = Environment({"python": "3.11.7", "XLA_FLAGS": "--a=b: c"}, {"numpy": "2.0", "tensorflow": "2.21"})
    assert provenance.from_text(provenance.as_text(found)) == found
    earlier = provenance.from_text("# python 3.11.7\n# Linux, 2 cores\nNumPy==2.0\n")
    assert earlier == Environment({"python": "3.11.7"}, {"numpy": "2.0"})
    assert earlier.with_facts({"commit": "abc", "python": "3.12"}).facts == {
        "commit": "abc",
        "python": "3.11.7",
    }
    assert (
        reproduce.differences(earlier, Environment(earlier.facts | {"threads": "2"}, {"numpy": "2.0"})) == []
    )
    assert reproduce.differences(found, Environment({"python": "3.12"}, found.packages)) == [
        ("python", "3.11.7", "3.12"),
        ("XLA_FLAGS", "--a=b: c", ""),
    ]


def test_the_version_of_a_package_is_that_of_the_one_that_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = tmp_path / "numpy-0.0.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: NumPy\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.environment.__wrapped__().packages["numpy"] == "0.0.1"
    monkeypatch.setattr(sys, "path", [*sys.path[1:], str(tmp_path)])
    assert provenance.environment.__wrapped__().packages["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('+api_key = "abc"', "+api_key = ***"),
        ("+  password: hunter2hunter2", "+  password: ***"),
        ("+AWS_SECRET_ACCESS_KEY=abc/def+123456", "+AWS_SECRET_ACCESS_KEY=***"),
        ("+uri = 'postgresql://me:secret@host/db'", "+uri = 'postgresql://***@host/db'"),
        ("+token = secrets.token_hex(16)", None),
        ("+    token: str", None),
        ("+if token == other_token2:", None),
    ],
)
def test_secrets_are_not_recorded(text: str, expected: str | None) -> None:
    assert redaction.without_secrets(text) == (expected or text)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
def test_uncommitted_changes_are_a_diff_that_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{ROOT}", str(clone)], check=True)
    script = clone / "run.py"
    script.write_text(script.read_text() + "\nNEW = 1\n \n")
    (clone / "mlp_tape" / "new.py").write_text("NEW = 2\n")
    (clone / "notes.bin").write_bytes(b"\0")
    monkeypatch.setattr(program, "ROOT", clone)
    provenance._git.cache_clear()
    provenance.uncommitted_changes.cache_clear()
    try:
        changes = provenance.uncommitted_changes()
    finally:
        monkeypatch.undo()
        provenance._git.cache_clear()
        provenance.uncommitted_changes.cache_clear()
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{ROOT}", str(other)], check=True)
    subprocess.run(["git", "-C", str(other), "apply", "-"], input=changes, text=True, check=True)
    assert (other / "run.py").read_text() == script.read_text()
    assert (other / "mlp_tape" / "new.py").read_text() == "NEW = 2\n"
    assert not (other / "notes.bin").exists()


def test_checksums_survive_a_partial_line(tmp_path: Path) -> None:
    found = checksums.of_arrays({"w1": np.ones(3, np.float32)})
    checksums.append(tmp_path, 10, found)
    with (tmp_path / "checksums.jsonl").open("ab") as file:
        file.write(b'[20, {"w1"')
    checksums.append(tmp_path, 20, found)
    checksums.append(tmp_path, 20, {"w1": "other"})
    assert checksums.read(tmp_path / "checksums.jsonl") == {10: found, 20: {"w1": "other"}}
