"""Compares searches on full MNIST in the same wall time: `python -m benchmarks.search METHOD SEED ...`.

    python -m benchmarks.search pruned 1 --data MNIST.npz [--budget 900]
    python -m benchmarks.search unpruned 1 --data MNIST.npz
    python -m benchmarks.search plugin 1 --data MNIST.npz --environment DIRECTORY
    python -m benchmarks.search keras 1 --data MNIST.npz
    python -m benchmarks.search report

A call measures one method with one seed of its sampler, and adds it to `search.json` when it has ended; it
replaces an earlier measurement of the same method and seed. `report` prints the table and draws the plot.
`plugin` is this program with Hydra's plug-in of 2022, in a virtual environment that is created in DIRECTORY.

Time begins with the process, in a directory that has a database, and with an empty cache of compilations. A
trial counts if it ended within the budget; only trials that were trained to their last epoch can be the best.
"""

import argparse
import importlib.metadata
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.measure import ROOT, machine
from benchmarks.report import BLUE, GREY, ORANGE
from mlp_tape.system import atomic_files

FILE, PLOT = ROOT / "benchmarks" / "search.json", ROOT / "docs" / "benchmark-search.png"
RUN, KERAS = str(ROOT / "run.py"), str(ROOT / "benchmarks" / "programs" / "keras_search.py")
PRUNED, UNPRUNED, PLUGIN, KERAS_LOOP = "pruned", "unpruned", "plugin", "keras"
METHODS = {
    PRUNED: ("mlp_tape, pruned", BLUE),
    UNPRUNED: ("mlp_tape, not pruned", "#56B4E9"),
    PLUGIN: ("mlp_tape with Hydra's plug-in of 2022", GREY),
    KERAS_LOOP: ("Optuna with a Keras loop, pruned", ORANGE),
}
SPACE = [
    "lr=tag(log,interval(1e-4,1e-1))",
    "batch_size=choice(64,128,256)",
    "model.hidden_sizes=choice([128],[256,128],[512,256])",
    "model.dropout=interval(0,0.4)",
]
FIXED = ["optimizer=adam", "loss=cross_entropy", "epochs=10", "shuffle=true", "seed=0"]
VALIDATION = ["validation_fraction=0.1", "dataset.split_seed=0"]
ENDLESS = 100_000  # trials; the plug-in has no other limit
GRACE = 300  # seconds after the budget in which a search must have ended
PACKAGES = ("tensorflow", "keras", "numpy", "mlflow", "hydra-core", "optuna", "hydra-optuna-sweeper")


@dataclass(frozen=True)
class Trial:
    """A trial that ended.

    Attributes:
        seconds: time of its end since the start of the process.
        accuracy: its last validation accuracy.
        pruned: number of epochs after which it was pruned; 0 if it was not.
    """

    seconds: float
    accuracy: float
    pruned: int


def environment(directory: Path) -> str:
    """Returns the Python of an environment with Hydra's plug-in of 2022, which is created unless it exists.

    What both environments have is installed in the versions of this one. Otherwise pip would choose Hydra
    1.4, as the plug-in accepts its release candidates.
    """
    python, complete = directory / "bin" / "python", directory / "complete"
    if not complete.exists():
        same = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES[:5]]
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT)]
        subprocess.run([*install, *same, "hydra-optuna-sweeper==1.3.*", "optuna==2.10.1"], check=True)
        complete.touch()
    return str(python)


def command(method: str, seed: int, budget: float, data: Path) -> list[str]:
    """Returns the arguments of Python for a search."""
    if method == KERAS_LOOP:
        return [KERAS, str(data), str(seed), f"{budget:g}"]
    search = ["hydra/sweeper=optuna", f"hydra.sweeper.sampler.seed={seed}"]
    if method == PLUGIN:  # whose defaults are two trials at a time, and to minimize
        search += [f"hydra.sweeper.n_trials={ENDLESS}", "hydra.sweeper.n_jobs=1"]
        search += ["hydra.sweeper.direction=maximize"]
    else:
        search += ["n_trials=null", f"timeout={budget:g}"] + ["pruner=none"] * (method == UNPRUNED)
    return [RUN, "-m", *search, *SPACE, *FIXED, *VALIDATION, f"dataset.path={data}"]


def measured(python: str, method: str, seed: int, budget: float, data: Path) -> list[Trial]:
    """Runs a search, and returns the trials that ended within the budget.

    Args:
        python: path of Python.
        method: name of the method.
        seed: seed of the sampler.
        budget: seconds.
        data: path of full MNIST.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        variables = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": name}
        variables.pop("MLFLOW_TRACKING_URI", None)
        if method != KERAS_LOOP:  # creates the database
            first = [python, RUN, "dataset=digits", "epochs=1"]
            subprocess.run(first, cwd=directory, env=variables, check=True, capture_output=True)
        output = directory / "output.txt"
        with output.open("w") as file, (directory / "errors.txt").open("w") as errors:
            began = time.time()
            program = subprocess.Popen(
                [python, *command(method, seed, budget, data)],
                cwd=directory,
                env=variables,
                stdout=file,
                stderr=errors,
            )
            try:
                code = _ended(program, budget, is_endless=method == PLUGIN)
            finally:
                if program.poll() is None:  # this program is interrupted
                    program.terminate()
                    program.wait()
        if code not in (0, 130 if method == PLUGIN else 0):
            shown = output.read_text() + (directory / "errors.txt").read_text()
            raise RuntimeError(f"{method} exited with {code}: {shown}")
        ended = _printed(output) if method == KERAS_LOOP else _recorded(directory / "multirun")
        found = [Trial(round(at - began, 2), accuracy, pruned) for at, accuracy, pruned in ended]
        return sorted((each for each in found if each.seconds <= budget), key=lambda each: each.seconds)


def _ended(program: subprocess.Popen[bytes], budget: float, is_endless: bool) -> int:
    """Waits for the end of a search, and returns its exit code; an endless one is interrupted."""
    if is_endless:
        try:
            program.wait(budget)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGINT)
            return program.wait(GRACE)
        raise RuntimeError(f"the search ended with {program.returncode} before its time was over")
    return program.wait(budget + GRACE)


def _printed(output: Path) -> Iterator[tuple[float, float, int]]:
    """Yields end, accuracy and pruning of each trial of the Keras program."""
    for line in output.read_text().splitlines():
        if line.startswith("{"):
            trial = json.loads(line)
            yield trial["ended"], trial["accuracy"], trial["pruned"]


def _recorded(sweeps: Path) -> Iterator[tuple[float, float, int]]:
    """Yields end, accuracy and pruning of each finished job of a sweep."""
    for path in sweeps.glob("*/*/*/run.json"):
        job = json.loads(path.read_text())
        if job["status"] == "FINISHED":
            yield job["ended"], job["results"]["validation/accuracy"], job["pruned"]


def versions(python: str) -> str:
    """Returns the versions of the packages that a Python has, as a text."""
    program = (
        "import sys, importlib.metadata as m\n"
        "known = {each.name.lower(): each.version for each in m.distributions()}\n"
        "print(', '.join(f'{name} {known[name]}' for name in sys.argv[1:] if name in known))"
    )
    done = subprocess.run([python, "-c", program, *PACKAGES], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def replaced(entries: Iterable[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns entries, ordered, with a new one in place of that of the same method and seed."""

    def key(entry: dict[str, Any]) -> tuple[int, int]:
        return list(METHODS).index(entry["method"]), entry["seed"]

    return sorted([*(each for each in entries if key(each) != key(new)), new], key=key)


def saved() -> list[dict[str, Any]]:
    """Returns the entries that were measured so far."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


def of_method(entries: Iterable[dict[str, Any]]) -> dict[str, list[list[Trial]]]:
    """Returns the trials of each measured method, a list for each seed.

    Raises:
        ValueError: the budgets differ.
    """
    found: dict[str, list[list[Trial]]] = {}
    budgets = set()
    for each in entries:
        budgets.add(each["budget"])
        found.setdefault(each["method"], []).append([Trial(**trial) for trial in each["trials"]])
    if len(budgets) > 1:
        raise ValueError(f"the budgets differ: {', '.join(f'{each:g} s' for each in sorted(budgets))}")
    return found


def best(trials: Sequence[Trial], seconds: float) -> float:
    """Returns the best accuracy of the trials that had finished at a time; NaN if none had."""
    finished = (each.accuracy for each in trials if not each.pruned and each.seconds <= seconds)
    return max(finished, default=math.nan)


def reached(trials: Sequence[Trial], accuracy: float) -> float:
    """Returns when a trial finished that has at least an accuracy; infinity if none has."""
    good = (each.seconds for each in trials if not each.pruned and each.accuracy >= accuracy)
    return min(good, default=math.inf)


def table(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a table in Markdown: medians over the seeds, and the range."""
    found = of_method(entries)
    budget = entries[0]["budget"]
    final = [best(trials, budget) for trials in found.get(PLUGIN, [])]
    target = statistics.median(final) if final else math.nan
    times = [budget / 4, budget / 2, budget]
    goal = (
        f"{target:.4f}, the plug-in's last accuracy, after" if final else "the plug-in's last accuracy after"
    )
    columns = ["", "seeds", "finished", "pruned", *(f"best after {each:g} s" for each in times), goal]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for method, (title, _) in METHODS.items():
        if method not in found:
            continue
        seeds = found[method]
        cells = [title, str(len(seeds))]
        for counts in ([sum(not each.pruned for each in seed) for seed in seeds], _pruned(seeds)):
            cells.append(_spread(counts, "{:g}"))
        cells += [_spread([best(trials, at) for trials in seeds], "{:.4f}") for at in times]
        cells.append(_spread([reached(trials, target) for trials in seeds], "{:.0f} s"))
        yield f"| {' | '.join(cells)} |"


def _pruned(seeds: list[list[Trial]]) -> list[int]:
    return [sum(each.pruned > 0 for each in seed) for seed in seeds]


def _spread(values: Sequence[float], form: str) -> str:
    """Returns the median and the range of values; a dash stands for what was not reached, or is not known."""
    ordered = sorted(math.inf if math.isnan(each) else each for each in values)
    shown = [form.format(each) if math.isfinite(each) else "-" for each in ordered]
    middle = statistics.median(ordered)
    median = form.format(middle) if math.isfinite(middle) else "-"
    return median if shown[0] == shown[-1] else f"{median} ({shown[0]} to {shown[-1]})"


def of_machines(entries: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the measurements of each machine, by its processor: their times cannot be compared."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in entries:
        found.setdefault(each.get("processor", ""), []).append(each)
    return found


def plot(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Plots the best accuracy so far against time: median, and range over the seeds, on each machine."""
    machines = of_machines(entries)
    figure = Figure(figsize=(9, 1 + 4 * len(machines)), layout="constrained")
    panels = figure.subplots(len(machines), squeeze=False, sharex=True)[:, 0]
    for axes, (processor, of_machine) in zip(panels, machines.items(), strict=True):
        _plot(axes, of_machine)
        axes.set_title(processor, fontsize="medium")
    panels[-1].set(xlabel="s since the start of the process")
    figure.suptitle("Best validation accuracy of a search on full MNIST, median and range over seeds")
    figure.savefig(path, dpi=100)


def _plot(axes: Axes, entries: Sequence[dict[str, Any]]) -> None:
    found, budget = of_method(entries), entries[0]["budget"]
    grid = [budget * i / 1000 for i in range(1001)]
    lowest, highest = 1.0, 0.0
    for method, (title, colour) in METHODS.items():
        seeds = found.get(method, [])
        points = [(at, sorted(best(trials, at) for trials in seeds)) for at in grid] if seeds else []
        points = [(at, values) for at, values in points if not any(map(math.isnan, values))]
        if not points:  # some seed has no finished trial
            continue
        x, y = [at for at, _ in points], [statistics.median(values) for _, values in points]
        label = f"{title}, {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
        axes.plot(x, y, drawstyle="steps-post", color=colour, label=label)
        axes.fill_between(
            x, [v[0] for _, v in points], [v[-1] for _, v in points], step="post", color=colour, alpha=0.15
        )
        lowest = min(lowest, best_after(points, budget / 4))
        highest = max(highest, points[-1][1][-1])
    axes.set(xlim=(0, budget), ylabel="best validation accuracy")
    axes.set_ylim(lowest - 0.005, highest + 0.001)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def best_after(points: list[tuple[float, list[float]]], seconds: float) -> float:
    """Returns the lowest accuracy over seeds at the first point from a time on."""
    return next((values[0] for at, values in points if at >= seconds), points[-1][1][0])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", choices=[*METHODS, "report"])
    parser.add_argument("seed", type=int, nargs="?", help="seed of the sampler")
    parser.add_argument("--data", type=Path, help="path of the full MNIST data set as an .npz file")
    parser.add_argument("--budget", type=float, default=900, help="seconds")
    parser.add_argument("--environment", type=Path, help="directory of the environment of the old plug-in")
    given = parser.parse_args()
    if given.method == "report":
        entries = saved()
        if not entries:
            parser.error(f"nothing has been measured: {FILE} does not exist")
        for processor, of_machine in of_machines(entries).items():
            print(f"{processor}:", "", *table(of_machine), "", sep="\n")
        plot(PLOT, entries)
        return
    if given.seed is None or given.data is None:
        parser.error("a measurement needs SEED and --data")
    if given.method == PLUGIN and given.environment is None:
        parser.error("plugin needs --environment")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the search is ended as well
    python = environment(given.environment.absolute()) if given.method == PLUGIN else sys.executable
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    entry = {
        "method": given.method,
        "seed": given.seed,
        "budget": given.budget,
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "processor": machine()["processor"],
        "packages": versions(python),
        "trials": [
            asdict(each)
            for each in measured(python, given.method, given.seed, given.budget, given.data.resolve())
        ],
    }
    entries = replaced(saved(), entry)
    atomic_files.write(FILE, (json.dumps(entries, indent=1) + "\n").encode())
    print("\n".join(table([entry])))


if __name__ == "__main__":
    main()
