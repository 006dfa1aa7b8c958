"""What a command costs besides training, in counts, which do not depend on how busy the machine is.

A count that grows says that something is done that was not done before. If that is wanted, change the count
here in the same commit.
"""

import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, Run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts the bytes"),
]
TYPED = ["dataset=digits", "epochs=2", "model.hidden_sizes=[16]", "report=none"]
STEPS = 2 * 12
VARIES = r"\.\w{8}\.tmp$|\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\w+/"  # parts of the paths of files


@dataclass(frozen=True)
class Counts:
    """What the two processes of a command did.

    Attributes:
        run: counts of the process that trains, as `counting/sitecustomize.py` writes them.
        mlflow: counts of the process that delivers to MLflow.
        n_compiled: number of programs that XLA compiled, and did not find in its cache.
        directory: directory in which the command was typed.
    """

    run: dict[str, Any]
    mlflow: dict[str, Any]
    n_compiled: int
    directory: Path

    @property
    def statements(self) -> Counter[str]:
        """The number of database statements of each kind, such as `INSERT metrics`."""
        return Counter(_kind(text) for text in self.mlflow["statements"])

    @property
    def written(self) -> Counter[str]:
        """How often each file below the directory was opened for writing, by both processes."""
        paths = (Path(path) for path in [*self.run["written"], *self.mlflow["written"]])
        inside = (path.relative_to(self.directory) for path in paths if path.is_relative_to(self.directory))
        return Counter(re.sub(VARIES, "", str(path)) for path in inside)


def _kind(statement: str) -> str:
    words = re.findall(r"\w+", statement)
    verb = words[0].upper() if words else ""
    table = re.search(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)", statement, re.I)
    return f"{verb} {table[1]}" if table else verb


def counted(run_py: Run, directory: Path, *typed: str) -> Counts:
    """Runs the program, and returns what it did."""
    place, cache = directory / "counts", directory / "cache"
    place.mkdir(exist_ok=True)
    before = set(cache.rglob("*")), set(place.iterdir())
    environment = {
        "PYTHONPATH": str(ROOT / "tests" / "counting"),
        "COUNTS": str(place),
        "XDG_CACHE_HOME": str(cache),
    }
    done = run_py(directory, *typed, **environment)
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in set(place.iterdir()) - before[1]]
    (run,) = [each for each in found if not each["is_mlflow"]]
    (mlflow,) = [each for each in found if each["is_mlflow"]]
    compiled = [path for path in set(cache.rglob("*")) - before[0] if path.is_file() and "xla" in str(path)]
    return Counts(run, mlflow, len(compiled), directory)


# Files that are written more often if the machine is slow, or that depend on the checkout; and directories
VARYING = re.compile(r"lock$|^mlruns|^mlflow|uncommitted|delivery|^\.$|^(outputs|multirun)/([\d-]+/)?[\w-]+$")


def files(counts: Counts) -> dict[str, int]:
    """Returns how often each file was written, without those of VARYING."""
    return {name: n for name, n in counts.written.items() if not VARYING.search(name)}


def rows(place: Path) -> int:
    """Returns the number of metric rows of the runs below a directory."""
    return sum(len(path.read_text().splitlines()) for path in place.glob("**/journal.jsonl"))


@dataclass(frozen=True)
class Commands:
    """Three commands in a directory: a run, the same once more, and one that resumes it for an epoch."""

    first: Counts
    second: Counts
    resumed: Counts
    rows: tuple[int, int, int]


@pytest.fixture(scope="module")
def commands(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    directory = tmp_path_factory.mktemp("run")
    typed = (TYPED, TYPED, ["resume=last", "epochs=3"])
    counts, totals = [], [0]
    for each in typed:
        counts.append(counted(run_py, directory, *each))
        totals.append(rows(directory))
    first, second, third = (after - before for before, after in itertools.pairwise(totals))
    return Commands(*counts, (first, second, third))


@pytest.fixture(scope="module")
def sweeps(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Counts]:
    """Sweeps of five and of ten jobs, by the number of jobs."""
    found = {}
    for n in (5, 10):
        values = ",".join(f"{0.1 + i / 100}" for i in range(n))
        found[n] = counted(run_py, tmp_path_factory.mktemp(f"sweep{n}"), "-m", *TYPED, f"lr={values}")
    return found


def test_each_program_is_compiled_once(commands: Commands, sweeps: dict[int, Counts]) -> None:
    """The loop for full batches and for the smaller last one, and the evaluation."""
    assert [each.n_compiled for each in (commands.first, commands.second, commands.resumed)] == [3, 0, 0]
    assert sweeps[5].n_compiled == sweeps[10].n_compiled <= 4, "all jobs share what is compiled"


def test_each_function_is_traced_once(commands: Commands, sweeps: dict[int, Counts]) -> None:
    for each in (commands.first, commands.second, commands.resumed):
        assert each.run["traces"] == {"_loop": 2, "score": 1}
    assert sweeps[5].run["traces"] == sweeps[10].run["traces"]
    assert sum(sweeps[10].run["traces"].values()) <= 4


def test_each_file_is_written_as_often_as_it_changes(commands: Commands, sweeps: dict[int, Counts]) -> None:
    always = {f"{name}.new": 1 for name in ("config.yaml", "environment.txt")}
    always |= {"console.log": 1, "journal.jsonl": 1, "run.json.new": 2}  # at the beginning and at the end
    for counts, steps in ((commands.second, (12, 24)), (commands.resumed, (36,))):
        kinds = [f"step-{step:09d}.{kind}.new" for step in steps for kind in ("npz", "json")]
        expected = always | {"checksums.jsonl": len(steps)} | {f"checkpoints/{name}": 1 for name in kinds}
        assert files(counts) == {f"outputs/{name}": n for name, n in expected.items()}
    of_jobs = {n: Counter(re.sub(r"/\d/", "/N/", name) for name in files(each)) for n, each in sweeps.items()}
    for name, n in of_jobs[10].items():
        assert n == (2 * of_jobs[5][name] if "/N/" in name else of_jobs[5][name]), name


def test_each_row_is_inserted_once(commands: Commands, sweeps: dict[int, Counts]) -> None:
    counts = commands.first, commands.second, commands.resumed
    assert [each.statements["INSERT metrics"] for each in counts] == list(commands.rows)
    for each in sweeps.values():
        assert each.statements["INSERT metrics"] == rows(each.directory)


def test_a_job_costs_as_many_statements_as_another(commands: Commands, sweeps: dict[int, Counts]) -> None:
    """How many there are depends a little on when rows are sent, but not on the number of jobs."""
    others = {n: _without_rows(each).total() for n, each in sweeps.items()}
    assert 100 < (others[10] - others[5]) / 5 < 300, others
    assert commands.second.statements.total() - commands.rows[1] < 450
    assert commands.second.statements["COMMIT"] < 30


def _without_rows(counts: Counts) -> Counter[str]:
    """Returns the statements that neither insert a row nor create the database."""
    others = ("INSERT metrics", "CREATE", "ALTER", "DROP", "SELECT sqlite_master", "UPDATE alembic_version")
    return Counter({kind: n for kind, n in counts.statements.items() if not kind.startswith(others)})


def test_nothing_is_imported_that_is_not_used(commands: Commands, sweeps: dict[int, Counts]) -> None:
    for each in (commands.second, commands.resumed, sweeps[10]):
        sides = each.run["modules"], each.mlflow["modules"]
        run, mlflow = ({name.partition(".")[0] for name in modules} for modules in sides)
        assert not run & {"mlflow", "keras", "tf_keras", "tensorboard", "optuna", "sqlalchemy"}
        assert not run & {"torch", "jax", "h5py", "scipy"}
        assert mlflow & {"tensorflow", "hydra", "sklearn", "matplotlib", "optuna"} == set()
    assert "matplotlib" not in commands.second.run["modules"], "nothing is drawn without a report"
    assert "mlp_tape.reports.saved_model" not in commands.second.run["modules"]


def test_data_are_read_once(run_py: Run, tmp_path: Path) -> None:
    rng, size = np.random.default_rng(0), 40_000_000
    x, y = rng.integers(0, 256, (size // 784, 28, 28), np.uint8), rng.integers(0, 10, size // 784)
    counts = []
    for n in (1_000, len(x)):
        np.savez(tmp_path / f"{n}.npz", x_train=x[:n], y_train=y[:n], x_test=x[:100], y_test=y[:100])
        more = f"dataset.path={n}.npz", "dataset=arrays", "epochs=1", "log_every=1000"
        counts.append(counted(run_py, tmp_path, *TYPED, *more))
    read = counts[1].run["bytes_read"] - counts[0].run["bytes_read"]
    assert size * 0.9 < read < size * 1.2
