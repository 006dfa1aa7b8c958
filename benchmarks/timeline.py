"""The phases of the whole command, before and after a change, measured in turns.

    python -m benchmarks.timeline FILE.npz [--before CLONE] [--rounds 5] [SETTING=VALUE ...]

CLONE is a directory with another version of this repository, whose dependencies are those of this one. The
table has the medians over the rounds of the seconds of each phase; the plot, `docs/benchmark-timeline.png`,
draws the round of this version whose time is the median.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.measure import ROOT, machine
from benchmarks.report import BLUE, GREY, ORANGE
from mlp_tape.system import timeline
from mlp_tape.system.timeline import Phase

PLOT = ROOT / "docs" / "benchmark-timeline.png"
COLOURS = {timeline.RUN: BLUE, timeline.MLFLOW: ORANGE, timeline.PLOTS: "#009E73"}
WHOLE = "whole command"


def measured(clone: Path, typed: Sequence[str], directory: Path) -> list[Phase]:
    """Runs the program of a clone; returns its phases, the first of which is the whole command."""
    file = directory / "timeline"
    file.write_text("")
    environment = os.environ | {timeline.VARIABLE: str(file)}
    began = time.monotonic()
    command = [sys.executable, str(clone / "run.py"), *typed]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    ended = time.monotonic()
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
    return [Phase(timeline.RUN, WHOLE, [(began, ended)]), *timeline.read(file)]


def table(rounds: dict[str, list[list[Phase]]]) -> Iterator[str]:
    """Yields a table in Markdown of the median seconds of each phase of each version."""
    seconds = {
        version: [{(each.process, each.name): each.seconds for each in phases} for phases in found]
        for version, found in rounds.items()
    }
    names = dict.fromkeys(name for found in seconds.values() for phases in found for name in phases)
    yield f"| process | phase | {' | '.join(rounds)} |"
    yield "|---" * (2 + len(rounds)) + "|"
    for name in names:
        medians = [statistics.median(phases.get(name, 0.0) for phases in found) for found in seconds.values()]
        yield f"| {' | '.join([*name, *(f'{each:.2f}' if each else '-' for each in medians)])} |"
    for version, found in rounds.items():
        wholes = sorted(phases[0].seconds for phases in found)
        yield ""
        yield f"{version}: {wholes[0]:.2f} to {wholes[-1]:.2f} s in {len(wholes)} rounds"


def draw(path: Path, phases: Sequence[Phase]) -> None:
    """Draws a bar for each time of each phase."""
    whole, *others = phases
    begin = whole.times[0][0]
    figure = Figure(figsize=(9, 0.6 + 0.24 * len(others)))
    axes = figure.subplots()
    for row, each in enumerate(others):
        colour = GREY if each.name == timeline.REST else COLOURS[each.process]
        spans = [(began - begin, max(ended - began, 0.005 * whole.seconds)) for began, ended in each.times]
        axes.broken_barh(spans, (row - 0.4, 0.8), color=colour)
    axes.set_yticks(range(len(others)), [f"{each.name} ({each.process})" for each in others], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="seconds since the start of the command", xlim=(0, whole.seconds))
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="file with full MNIST")
    parser.add_argument("settings", nargs="*", help="other settings")
    parser.add_argument("--before", type=Path, help="clone of another version")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_intermixed_args()
    clones = {"before": arguments.before} if arguments.before else {}
    clones |= {"now": ROOT}
    typed = [f"dataset.path={arguments.data.absolute()}", *arguments.settings]
    rounds: dict[str, list[list[Phase]]] = {version: [] for version in clones}
    with tempfile.TemporaryDirectory() as parent:
        places = {version: Path(parent) / version for version in clones}
        for turn in range(arguments.rounds + 1):  # the first one creates databases and caches
            for version in list(clones)[:: -1 if turn % 2 else 1]:
                places[version].mkdir(exist_ok=True)
                phases = measured(clones[version].absolute(), typed, places[version])
                if turn:
                    rounds[version].append(phases)
                    print(
                        f"round {turn}/{arguments.rounds}  {version:8} {phases[0].seconds:.2f} s", flush=True
                    )
    about = machine()
    print(f"\n{about['date']}, {about['processor']}, {about['packages']}; {' '.join(arguments.settings)}\n")
    for line in table(rounds):
        print(line)
    middle = sorted(rounds["now"], key=lambda phases: phases[0].seconds)[len(rounds["now"]) // 2]
    draw(PLOT, middle)


if __name__ == "__main__":
    main()
