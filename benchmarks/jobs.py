"""What a job costs beyond its training as a sweep grows: `python -m benchmarks.jobs [ROUNDS]`.

Measured in turns: sweeps of 1 to 1,000 jobs of `dataset=digits epochs=3` over the learning rate, in one
process. The cost of a job is the additional time of the additional jobs, each, less the median of their
training times; the first job starts the program and compiles. Memory is the peak of all processes.
"""

import functools
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import measure
from benchmarks.commands import RUN
from benchmarks.measure import in_turns

JOBS = (1, 10, 100, 200, 1000)
SETTINGS = ("dataset=digits", "epochs=3")


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        measure.command([RUN, *SETTINGS], directory)  # creates the database
        found = in_turns(rounds, {str(n): functools.partial(_sweep, directory, n) for n in JOBS})
        training = statistics.median(_training(directory))
    print("\n| jobs | seconds | a job beyond its training | peak memory |\n|---|---|---|---|")
    first = found["1"].median
    for n in JOBS:
        series = found[str(n)]
        cost = f"{(series.median - first) / (n - 1) - training:.3f} s" if n > 1 else ""
        print(f"| {n:,} | {series.median:.1f} | {cost} | {series.memory:,.0f} MiB |")
    print(f"\nThe training of a job takes {training:.3f} s.")


def _sweep(directory: Path, jobs: int) -> tuple[float, float]:
    rates = ",".join(f"{0.0001 * i:g}" for i in range(1, jobs + 1))
    return measure.command([RUN, "-m", *SETTINGS, f"lr={rates}"], directory)


def _training(directory: Path) -> list[float]:
    """Returns the seconds that each job has trained, of the sweeps in a directory."""
    records = [json.loads(path.read_text()) for path in directory.glob("multirun/*/*/*/run.json")]
    return [record["seconds"] for record in records]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
