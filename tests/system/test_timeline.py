"""`--timeline`: what each process did, and when."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from conftest import SMALL, Run
from mlp_tape.system import timeline
from mlp_tape.system.timeline import REST, Phase


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that this process records its phases in."""
    path = tmp_path / "timeline"
    monkeypatch.setenv(timeline.VARIABLE, str(path))
    return path


def test_without_the_option_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(timeline.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "argv", ["run.py", "lr=0.1"])
    timeline.start()
    with timeline.phase("data"):
        pass
    assert timeline.VARIABLE not in os.environ
    assert timeline.report() == []


def test_the_option_is_removed_from_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(timeline.VARIABLE, "")  # is restored
    monkeypatch.setattr(timeline, "_is_shown", False)  # likewise
    monkeypatch.setattr(sys, "argv", ["run.py", "--timeline", "lr=0.1"])
    timeline.start()
    assert sys.argv == ["run.py", "lr=0.1"]
    path = Path(os.environ[timeline.VARIABLE])
    with timeline.phase("data"):
        time.sleep(0)
    shown = "\n".join(timeline.report())
    assert re.search(r"^run +Python +\d", shown, re.M) and re.search(r"^run +data +0.00 +1 ", shown, re.M)
    assert not path.exists() and timeline.VARIABLE not in os.environ


def test_phases_are_recorded_also_if_they_fail(recording: Path) -> None:
    with timeline.phase("data"), timeline.phase("download"):
        time.sleep(0)

    @timeline.phase("evaluation")
    def fails() -> None:
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            fails()
    timeline.begin("training")
    timeline.begin("training")  # has begun
    timeline.end("training")
    timeline.end("training")  # has no effect
    found = {phase.name: len(phase.times) for phase in timeline.read(recording) if phase.name != REST}
    assert found == {"data": 1, "download": 1, "evaluation": 2, "training": 1}


def test_the_rest_is_what_no_phase_covers(recording: Path) -> None:
    times = [["run", "a", 0, 2], ["run", "b", 1, 3], ["mlflow", "c", 3, 9], ["run", "a", 5, 6]]
    recording.write_text("".join(json.dumps(each) + "\n" for each in times))
    found = [(phase.process, phase.name, phase.times) for phase in timeline.read(recording)]
    assert found == [
        ("run", "a", [(0, 2), (5, 6)]),
        ("run", "b", [(1, 3)]),
        ("mlflow", "c", [(3, 9)]),
        ("run", REST, [(3, 5)]),
    ]


def test_the_table_draws_each_phase_when_it_was() -> None:
    phases = [Phase("run", "a", [(0.0, 2.0), (8.0, 10.0)]), Phase("mlflow", "late", [(9.99, 10.0)])]
    head, *lines = timeline.table(phases, 10)
    assert head.split() == ["process", "phase", "seconds", "times", "0", "5.0", "10.0", "s"]
    assert [line.split()[:4] for line in lines] == [
        ["run", "a", "4.00", "2"],
        ["mlflow", "late", "0.01", "1"],
    ]
    start = head.index("0")
    assert [line[start:] for line in lines] == ["==      ==", "         ="]


@pytest.mark.parametrize(
    ("typed", "n_trained"), [([], 1), (["-m", "lr=0.1,0.2,0.3"], 3)], ids=["run", "sweep"]
)
def test_the_phases_of_both_processes_are_shown(
    run_py: Run, tmp_path: Path, typed: list[str], n_trained: int
) -> None:
    done = run_py(tmp_path, *typed, *SMALL, "--timeline", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout[done.stdout.index("process  phase") :]
    for process, phase in (
        ("run", "composition"),
        ("run", "import of TensorFlow"),
        ("mlflow", "import of MLflow"),
        ("mlflow", "metrics"),
    ):
        assert re.search(rf"^{process} +{phase} +\d+\.\d\d +\d+  +=", shown, re.M), shown
    trained = re.search(r"^run +training +\d+\.\d\d +(\d+)  ", shown, re.M)
    assert trained and int(trained[1]) >= n_trained
    assert not list(tmp_path.glob("*timeline*"))
