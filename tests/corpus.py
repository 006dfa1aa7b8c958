"""Invalid inputs and the expected messages: each is rejected at once, in two lines, with exit code 2."""

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """An invalid input.

    Attributes:
        arguments: arguments of run.py.
        message: text that the first line of the error contains.
        file: creates a file or directory at the given path, `data.npz`; None for no file.
        environment: additional environment variables.
        is_quick: whether to check only the settings, because a similar case runs the program.
    """

    arguments: list[str]
    message: str
    file: Callable[[Path], object] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    is_quick: bool = False


def _settings() -> list[Case]:
    """Returns invalid values of each setting: wrong types, out of range, not finite, huge, empty."""
    positive, fraction = "expected a finite number above 0", "expected a number from 0 to below 1"
    integer, choice = "expected an integer from", "expected one of: "
    invalid: dict[str, tuple[str, list[str]]] = {
        "lr": (
            positive,
            ["-1", "0", "nan", "inf", "-inf", "abc", "true", "null", "[1]", "{a:1}", "1e400", "''"],
        ),
        "batch_size": (
            integer,
            ["0", "-5", "1.5", "abc", "1e3", "null", "true", "99999999999999999999", "''"],
        ),
        "epochs": (integer, ["0", "-3", "2.5", "nan", "many", "[1]", "1000001"]),
        "seed": (integer, ["-1", "4294967296", "0.5", "null", "many"]),
        "log_every": (integer, ["0", "-1", "0.1", "never"]),
        "shuffle": ("expected true or false", ["1", "maybe", "[]"]),
        "loss": (choice, ["mes", "null", "3", "''", "mse.", "a..b"]),
        "label_smoothing": (fraction, ["1", "-0.1", "nan", "much"]),
        "l2": ("not below 0", ["-1", "inf", "nan"]),
        "clip_norm": (positive, ["0", "-1", "nan", "yes"]),
        "precision": (choice, ["float16", "32", "null"]),
        "validation_fraction": (fraction, ["1", "-0.1", "1.5", "half"]),
        "engine": (choice, ["compile", "null", "1"]),
        "report": (choice, ["all", "1", "[]"]),
        "model.hidden_sizes": (
            "layer sizes from 1",
            ["[0]", "[-1]", "[9,x]", "256", "[1.5]", "[[1]]", "[65537]", "null"],
        ),
        "model.init_stddev": (positive, ["0", "-1", "nan", "''"]),
        "model.init": (choice, ["zeros", "null"]),
        "model.activation": (choice, ["mish", "RELU", "1"]),
        "model.dropout": (fraction, ["1", "-1", "inf"]),
        "augment.shift": ("not below 0", ["-1", "nan", "left"]),
        "augment.rotate": ("up to 180", ["181", "-1"]),
        "stopping.patience": (integer, ["0", "1.5", "soon"]),
        "stopping.monitor": (choice, ["acc"]),
        "checkpoint.every_steps": ("an integer from 1", ["0", "-1", "often"]),
        "dataset.name": (choice, ["mnits", "MNIST", "null", "../mnist"]),
        "dataset.path": ("the path of a file or of a directory", ["''", "' '"]),
        "dataset.offline": (choice, ["maybe", "1"]),
        "optimizer.name": (choice, ["sdg", "null", "[]"]),
        "schedule.name": (choice, ["linear", "null"]),
        "schedule.warmup_epochs": ("not below 0", ["-1", "nan"]),
        "tracking.enabled": ("expected true or false", ["perhaps", "0", "null"]),
        "tracking.experiment": ("a name that is not empty", ["''", "' '"]),
        "tracking.patience": (positive, ["0", "-1", "nan"]),
        "tracking.register_as": ("a name without / and :", ["a/b", "a:b", "''"]),
        "tracking.system_metrics": ("expected true or false", ["1", "gpu"]),
        "run_name": ("a line of up to 250 characters", ["''", '"a\nb"', "x" * 251]),
        "tags": ("up to 50 tags", ["3", "null", "[a]"]),
        "tags.a": ("a text of up to 5,000 characters, or a number", ["null", "''"]),
        "tags.mlflow.user": ("writes the tag mlflow.user", ["me"]),
        "tags.host": ("writes the tag host", ["me"]),
        "tags.lr": ("writes the tag lr", ["high"]),
        "note": ("a text of up to 4,000 characters", ["''", "x" * 4001]),
        "sweep.fail_fast": ("expected true or false", ["1", "no way"]),
    }
    return [
        Case([f"{key}={value}"], message, is_quick=i > 0)
        for key, (message, values) in invalid.items()
        for i, value in enumerate(values)
    ]


def _commands() -> list[Case]:
    """Returns cases that cannot be composed: unknown, nested, missing, conflicting, malformed."""
    unknown = "error: unknown setting: "
    return [
        Case(["lrr=0.1"], unknown + "lrr"),
        Case(["LR=0.1"], unknown + "LR"),
        Case(["+lrr=0.1"], unknown + "lrr"),
        Case(["++lrr=0.1"], unknown + "lrr"),
        Case(["+lr=0.1"], "lr"),
        Case(["~lr"], "lr has no value"),
        Case(["~model"], "model has no value"),
        Case(["~nothing"], "nothing"),
        Case(["model.hidden_size=[3]"], unknown + "model.hidden_size"),
        Case(["hidden_sizes=[3]"], unknown + "hidden_sizes"),
        Case(["lr.x=3"], "lr"),
        Case(["+a.b.c=1"], unknown + "a"),
        Case(["model=conv"], "model=conv: expected one of: mlp"),
        Case(["dataset=cifar"], "dataset=cifar: expected one of: "),
        Case(["optimizer=adagrad"], "optimizer=adagrad: expected one of: "),
        Case(["schedule=linear"], "schedule=linear: expected one of: "),
        Case(["+experiment=best"], "experiment=best: expected one of: "),
        Case(["experiment=smoke"], "experiment"),
        Case(["tracking=wandb"], "tracking=wandb: expected one of: mlflow"),
        Case(["+optimizer.momentum=0.9"], "optimizer.momentum is not a setting of sgd"),
        Case(["optimizer.name=adam"], "optimizer.beta_1 has no value, but adam requires it"),
        Case(["optimizer=adam", "optimizer.beta_1=1"], "expected a number from 0 to below 1"),
        Case(["optimizer=adam", "optimizer.epsilon=0"], "expected a finite number above 0"),
        Case(["+schedule.final=0.1"], "schedule.final is not a setting of constant"),
        Case(["schedule=one_cycle", "schedule.rising=1"], "above 0 and below 1"),
        Case(["stopping.patience=3"], "requires validation images"),
        Case(["lr="], "lr="),
        Case(["=0.1"], "Config group override must be"),
        Case(["lr"], "cannot parse"),
        Case(["lr=0.1,0.2"], "lr=0.1,0.2"),
        Case(["lr=[1"], "cannot parse"),
        Case(["lr=${nothing}"], "nothing"),
        Case(["lr=${oc.env:NOT_THERE_AT_ALL}"], "NOT_THERE_AT_ALL"),
        Case(["lr=${lr}"], "Recursive interpolation"),
        Case(["--nonsense"], "--nonsense"),
        Case(["--config-name=other"], "other"),
        Case(["--config-dir=/nowhere/at/all"], "/nowhere/at/all"),
        Case(["model=[1]"], "error: "),
        Case(["dataset=null"], "Config group override must be"),
        Case(["seed=ü"], "cannot parse seed=ü"),
        Case(["lr=\u0661"], "cannot parse lr=\u0661"),
        Case(["学习率=0.1"], "学习率"),
        Case(["resume=nothing"], "resume=nothing: no such run"),
        Case(["resume=last"], "resume=last: no run below"),
        Case(["resume=''"], "resume="),
        Case(["resume=.."], "resume=.."),
        Case(["sweep.resume=last"], "sweep.resume=... resumes a sweep"),
        Case(["-m", "sweep.resume=last"], "sweep.resume=last: no sweep below"),
        Case(["-m", "lr=0.1,-1"], "lr=-1: expected a finite number above 0"),
        Case(["-m", "lr=0.1,0.2", "resume=last"], "resume=... resumes a single run"),
        Case(["-m", "model=mlp,conv"], "model=conv: expected one of: mlp"),
        Case(["-m", "lr=choice("], "cannot parse"),
        Case(["-m", "hydra/launcher=cloud"], "hydra/launcher=cloud: expected one of: "),
    ]


def save(**changes: object) -> Callable[[Path], object]:
    """Returns a function that writes valid arrays with some of them replaced; None omits an array."""

    def write(path: Path) -> None:
        arrays: dict[str, object] = {
            "x_train": np.zeros((20, 4, 4), np.uint8),
            "y_train": np.arange(20) % 3,
            "x_test": np.zeros((10, 4, 4), np.uint8),
            "y_test": np.arange(10) % 3,
        }
        np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})

    return write


def bomb(path: Path) -> None:
    """Writes an archive whose first member declares a size of 8 TiB."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (2**23, 1024, 1024)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(10_000_000))
        for name in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", header.getvalue())


def false_size(path: Path) -> None:
    """Writes an archive whose directory declares a size of 4 GiB for a member."""
    save()(path)
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)


def truncated(path: Path) -> None:
    """Writes an archive without its last 200 bytes."""
    save()(path)
    path.write_bytes(path.read_bytes()[:-200])


def escaping(path: Path) -> None:
    """Writes an archive with a member whose path leaves the directory."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../outside.npy", b"x")


def _files() -> list[Case]:
    """Returns cases of invalid data files."""

    def rows(*shape: int, dtype: type = np.uint8) -> np.ndarray:
        return np.zeros(shape, dtype)

    file = ["dataset=arrays", "dataset.path=data.npz"]
    nan = np.full((20, 4, 4), np.nan, np.float32)
    files: list[tuple[Callable[[Path], object], str]] = [
        (lambda path: path.write_bytes(b""), "data.npz is empty"),
        (lambda path: path.mkdir(), "data.npz has no files"),
        (lambda path: path.write_text("No table.\nA text."), "is a text, but not a table"),
        (
            lambda path: path.write_text("a,b,c\n0.5,0.2,0.1\n"),
            "it is not clear whether the first or the last",
        ),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "data.npz is damaged"),
        (lambda path: path.write_bytes(bytes(1000)), "is of no known kind"),
        (lambda path: path.write_bytes(b"\x80\x04}."), "is a pickle, which can run any program"),
        (lambda path: path.write_text("<html>"), "is a web page"),
        (lambda path: np.save(path.open("wb"), rows(3, 3)), "has no y_train; it has data.npz"),
        (lambda path: path.symlink_to(path), "is a link to a file that is not there"),
        (truncated, "data.npz is damaged"),
        (bomb, "data.npz is damaged: it has"),
        (false_size, "data.npz is damaged"),
        (escaping, "data.npz is damaged"),
        (save(x_train=None), "has no x_train"),
        (save(x_train=None, y_test=None, images=rows(3)), "has no x_train; it has"),
        (save(x_train=np.array([{"a": 1}] * 20, object)), "x_train consists of Python objects"),
        (save(x_train=np.array([["a"] * 4] * 20)), "x_train is of dtype <U1"),
        (save(x_train=rows(20, 4, 4, dtype=np.complex64)), "x_train is of dtype complex64"),
        (save(x_train=nan, x_test=nan[:10]), "x_train contains NaN"),
        (save(x_train=np.full((20, 4), np.inf), x_test=rows(10, 4, dtype=float)), "x_train contains NaN"),
        (save(x_train=np.full((20, 4), 1e300), x_test=rows(10, 4, dtype=float)), "beyond float32"),
        (save(x_train=rows(20)), "x_train has the shape (20,)"),
        (save(x_train=np.uint8(3)), "x_train has the shape ()"),
        (save(x_train=rows(20, 0)), "x_train has the shape (20, 0)"),
        (save(x_train=rows(19, 4, 4)), "x_train has 19 rows and y_train 20"),
        (save(x_train=rows(0, 4, 4), y_train=np.zeros(0, int)), "x_train has 0 rows"),
        (save(x_test=rows(0, 4, 4), y_test=np.zeros(0, int)), "x_test has 0 rows"),
        (save(x_test=rows(10, 4, 5)), "x_train and x_test differ in shape"),
        (save(x_test=rows(10, 4, 4, dtype=np.float32)), "x_train and x_test differ in dtype"),
        (save(x_test=rows(10, 16)), "x_train and x_test differ in shape"),
        (save(y_train=np.arange(20) / 2), "y_train contains 0.5, which is no class"),
        (save(y_train=np.eye(20, 3, dtype=int)), "y_train is of shape (20, 3), but its rows are not one-hot"),
        (save(y_train=np.full(20, 2**63, np.uint64)), "y_train goes up to"),
        (save(y_train=np.zeros(20, int), y_test=np.zeros(10, int)), "all 30 labels are 0"),
        (save(y_train=None), "has no y_train"),
    ]
    cases = [Case(file, message, maker) for maker, message in files]
    for path in ("nothing.npz", "no/such/directory/x.npz", "x" * 300 + ".npz", "~/nothing.npz"):
        cases.append(Case(["dataset=arrays", f"dataset.path='{path}'"], "error: "))
    cases.append(Case(["dataset=arrays"], "dataset=arrays needs a file"))
    cases.append(Case(["dataset=mnist", "dataset.offline=error"], "its download failed"))
    cases.append(Case(["dataset=fashion_mnist"], "its download failed"))
    cases.append(
        Case(
            [*file, "augment.shift=1"],
            "augment requires images",
            save(x_train=rows(20, 16), x_test=rows(10, 16)),
        )
    )
    cases.append(
        Case(
            [*file, "augment.shift=1"],
            "augment requires images",
            save(x_train=rows(20, 4, 4, 3), x_test=rows(10, 4, 4, 3)),
        )
    )
    one = save(x_train=rows(1, 4, 4), y_train=np.array([1]))
    cases.append(Case([*file, "validation_fraction=0.5"], "leaves none to train on", one))
    return cases


def _stores() -> list[Case]:
    """Returns cases of unusable MLflow stores."""

    def at(uri: str, message: str, file: Callable[[Path], object] | None = None, **environment: str) -> Case:
        return Case(["dataset=digits", "epochs=1", f"tracking.uri='{uri}'"], message, file, environment)

    def newer(path: Path) -> None:
        import sqlite3

        with sqlite3.connect(path) as database:
            database.execute("create table alembic_version (version_num varchar(32) not null)")
            database.execute("insert into alembic_version values ('ffffffffffff')")
            database.execute("create table experiments (experiment_id integer)")

    return [
        at("http://127.0.0.1:9", "cannot be opened: no answer"),
        at("http://127.0.0.1:9/", "cannot be opened: no answer"),
        at("https://127.0.0.1:9", "cannot be opened: no answer"),
        at("http://me:secret@127.0.0.1:9", "http://***@127.0.0.1:9"),
        at("postgresql://me:secret@127.0.0.1:9/mlflow", "cannot be opened: no answer"),
        at("gopher://x", "gopher is not one of"),
        at("http://", "it contains no host name"),
        at("http://[::1", "it is not a valid URI"),
        at("sqlite:///no/such/directory/x.db", "no/such/directory"),
        at("sqlite:///data.npz", "data.npz", lambda path: path.mkdir()),
        at(
            "sqlite:///data.npz",
            "data.npz",
            lambda path: path.write_text("this is not a database, and long enough"),
        ),
        at("sqlite:///data.npz", "Can't locate revision", newer),
        at("http://127.0.0.1:99999", "it is not a valid URI"),
        at("mysql://127.0.0.1:9/mlflow", "cannot be opened: no answer"),
        Case(["dataset=digits"], "no answer", environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}),
        Case(["dataset=digits"], "MLFLOW_RUN_ID=1a", environment={"MLFLOW_RUN_ID": "1a"}),
        Case(["-m", "seed=1,2"], "MLFLOW_RUN_ID=1a", environment={"MLFLOW_RUN_ID": "1a"}),
        Case(["dataset=digits"], "MLFLOW_EXPERIMENT_ID=7", environment={"MLFLOW_EXPERIMENT_ID": "7"}),
        Case(["dataset=digits"], "MLFLOW_RUN_NAME=", environment={"MLFLOW_RUN_NAME": "a\nb"}),
        Case(["-m", "hydra.sweeper.params.note='a,b'"], "hydra.sweeper.params"),
        Case(["loss=mse,cross_entropy"], "Ambiguous value for argument 'loss=mse,cross_entropy'"),
    ]


CASES = [*_settings(), *_commands(), *_files(), *_stores()]
