"""Stress test of the embedded store: random parallel commands, killed at random, and a check of the results.

A seed determines all choices: the commands of each actor, which of them are interrupted, by which signal, and
how long after which line of output. How they interleave depends on the machine.
"""

import contextlib
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN, TOOL = (str(ROOT / "run.py"),), ("-m", "mlp_tape")
JOBLIB = "hydra/launcher=joblib hydra.launcher.n_jobs=2"
ACTORS = 8
SPINNERS = 2
WORKERS = 3  # maximum number of processes of a command with a temporary directory of their own
INTERRUPTED = 0.45  # fraction of the commands to interrupt; some end earlier, so that a third is interrupted
LIMIT = 900.0  # seconds for one command; a joblib sweep took up to 250 in parallel with others
EXIT_LIMIT = 60.0  # seconds for the processes of commands that have ended
STOP_LIMIT = 300.0  # seconds from a signal to the exit, far more than needed; the report has actual times
PARENT = "mlflow.parentRunId"

# Text that no command may print. The first also occurs in tracebacks of threads.
FORBIDDEN = (
    "Traceback",
    "Fatal Python",
    "malformed",
    "terminate called",
    "is not a database",
    "not a SQLite database",
    "disk I/O error",
    "is damaged",
)
# Texts in the log after which a command is interrupted: immediately, after the first output, in training.
MARKS = ("", "\ndata  |\nsweep  ", "\nepoch |  began\n")


@dataclass(frozen=True)
class Kind:
    """A kind of command.

    Attributes:
        name: name in the report.
        command: arguments of the interpreter.
        codes: valid exit codes if it is not interrupted.
        weight: relative frequency.
        sweeps: whether it may have jobs, one of which can fail alone.
    """

    name: str
    command: tuple[str, ...]
    codes: frozenset[int]
    weight: int = 2
    sweeps: bool = False


def _run_py(text: str) -> tuple[str, ...]:
    """Returns the command that runs run.py with space-separated arguments."""
    return (*RUN, *text.split())


KINDS = [
    Kind("run", _run_py("dataset=mnist_5k epochs=20 lr=0.1"), frozenset({0}), 3),
    Kind("short run", _run_py("dataset=digits epochs=1 report=none"), frozenset({0})),
    Kind("sweep", _run_py("-m dataset=digits epochs=20 lr=0.1,0.2,0.3"), frozenset({0}), 3, True),
    Kind(
        "joblib sweep",
        _run_py(f"-m {JOBLIB} dataset=digits epochs=30 lr=0.1,0.2,0.3,0.4"),
        frozenset({0}),
        2,
        True,
    ),
    Kind("divergence", _run_py("dataset=digits lr=1e20"), frozenset({1}), 1),
    Kind("resume", _run_py("resume=last"), frozenset({0, 1, 2})),
    Kind("sweep.resume", _run_py("-m sweep.resume=last"), frozenset({0, 1, 2}), 2, True),
    Kind("sync", (*TOOL, "sync"), frozenset({0, 1, 2}), 1),
    Kind("compare last", (*TOOL, "compare", "last"), frozenset({0, 2}), 1),
    Kind("compare two", (*TOOL, "compare"), frozenset({0, 2}), 1),
]
NEXT, SYNC = KINDS[1], KINDS[7]

# Signals, their targets and relative frequencies. Ctrl-C in a terminal goes to the whole process group.
INTERRUPTIONS = {
    (Signals.SIGKILL, "program"): 4,
    (Signals.SIGKILL, "program and MLflow process"): 2,
    (Signals.SIGKILL, "MLflow process"): 2,
    (Signals.SIGINT, "program"): 1,
    (Signals.SIGINT, "group"): 2,
    (Signals.SIGTERM, "program"): 2,
    (Signals.SIGTERM, "group"): 1,
}


@dataclass(frozen=True)
class Interruption:
    """How a command is interrupted.

    Attributes:
        signal: signal to send.
        target: the program, its process group, its MLflow process, or program and MLflow process.
        mark: alternative texts separated by `|`; the log must contain one of them first; may be empty.
        seconds: delay after that.
    """

    signal: Signals
    target: str
    mark: str
    seconds: float


@dataclass
class Command:
    """A command and its result.

    Attributes:
        kind: its kind.
        log: file with its output.
        interruption: how to interrupt it; None not to interrupt it.
        interrupted: whether the signal was sent to at least one process.
        caught: whether the program had installed its signal handlers by then.
        code: exit code as in `subprocess`; None if it hung.
        seconds: time from start to exit.
        stopping: seconds from the signal to the exit.
    """

    kind: Kind
    log: Path
    interruption: Interruption | None
    interrupted: bool = False
    caught: bool = False
    code: int | None = None
    seconds: float = 0.0
    stopping: float = 0.0

    @property
    def expected(self) -> frozenset[int]:
        """The valid exit codes."""
        if not self.interruption or not self.interrupted:
            return self.kind.codes
        if self.interruption.target == "MLflow process":  # exit code 2 if the run was not created yet
            return self.kind.codes | ({0, 1, 2} if self.kind.sweeps else {0, 2})
        if self.interruption.signal == Signals.SIGKILL:
            return self.kind.codes | {-Signals.SIGKILL}
        early = frozenset() if self.caught else frozenset({-self.interruption.signal})
        return self.kind.codes | {128 + self.interruption.signal} | early

    def __str__(self) -> str:
        text = f"{self.log.name} ({self.kind.name}"
        if self.interruption and self.interrupted:
            early = "" if self.caught or self.interruption.signal == Signals.SIGKILL else ", not yet caught"
            text += f", {self.interruption.signal.name} to {self.interruption.target}{early}"
            text += f", {self.stopping:.1f} s before its end"
        return f"{text}, {self.seconds:.0f} s)"

    def problems(self) -> Iterator[str]:
        """Yields a description of each problem."""
        if self.code is None:
            yield f"{self}: hung for {LIMIT:.0f} s"
            return
        printed = self.log.read_text(errors="replace")
        if self.code not in self.expected:
            last = " | ".join(printed.strip().splitlines()[-3:])
            yield f"{self}: exit code {self.code}, expected one of {sorted(self.expected)}: {last[-400:]}"
        if self.kind.name == "resume" and self.code == 1 and "the loss is" not in printed:
            yield f"{self}: exit code 1 without a divergence: {printed[-400:]}"
        ordered = (
            self.interrupted
            and self.caught
            and self.interruption
            and self.interruption.target != "MLflow process"
        )
        if ordered and self.stopping > STOP_LIMIT:
            yield f"{self}: did not end within {STOP_LIMIT:.0f} s"
        early = (
            self.interrupted
            and self.interruption
            and self.interruption.signal == Signals.SIGINT
            and not self.caught
        )
        for word in FORBIDDEN:
            if word in printed and not (early and word == "Traceback"):  # Ctrl-C during the start of Python
                (line, *_) = [line for line in printed.splitlines() if word in line]
                yield f"{self}: its log contains `{word}`: {line[:200]} ... {printed.strip()[-300:]!r}"


@dataclass
class Report:
    """Results of a stress test.

    Attributes:
        directory: its directory.
        seed: the seed that determines all choices.
        seconds: total time.
        commands: all commands that were started.
        runs: number of runs in the database.
        rows: number of metric rows in the database.
        without_record: number of runs that were killed after their creation and before run.json was written.
        responses: number of successful responses of `mlflow ui`.
        failed_requests: number of requests to `mlflow ui` that failed or timed out, by error.
        leftovers: number of files left in the temporary directory.
        problems: a line for each violation.
    """

    directory: Path
    seed: int
    seconds: float = 0.0
    commands: list[Command] = field(default_factory=list)
    runs: int = 0
    rows: int = 0
    without_record: int = 0
    responses: int = 0
    failed_requests: Counter[str] = field(default_factory=Counter)
    leftovers: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        interrupted = [command for command in self.commands if command.interrupted]
        interruptions = Counter(
            f"{each.interruption.signal.name} to {each.interruption.target}"
            for each in interrupted
            if each.interruption
        )
        orders = [
            each
            for each in interrupted
            if each.caught and each.interruption and each.interruption.signal.name != "SIGKILL"
        ]
        ordered = sorted(each.stopping for each in orders)
        lines = [f"seed {self.seed}: {len(self.commands)} commands, {len(interrupted)} of them interrupted"]
        for kind in KINDS:
            codes = Counter(str(each.code) for each in self.commands if each.kind is kind)
            text = ", ".join(f"{count} with exit code {code}" for code, count in sorted(codes.items()))
            lines += [f"  {codes.total():3} {kind.name}: {text}"] if codes else []
        lines += [
            f"  {count:3} interrupted by {interruption}"
            for interruption, count in sorted(interruptions.items())
        ]
        if ordered:
            text = f"at most {ordered[-1]:.1f} s, median {ordered[len(ordered) // 2]:.1f} s"
            lines.append(f"from SIGINT or SIGTERM to the exit: {text}, with all cores busy")
        unanswered = (
            ", ".join(f"{count} {what}" for what, count in self.failed_requests.items()) or "no errors"
        )
        lines.append(f"mlflow ui: {self.responses} responses; {unanswered}")
        early = f"{self.without_record} of them killed before run.json was written"
        lines.append(f"{self.runs} runs in the database, {early}; {self.rows:,} rows")
        lines.append(f"{self.leftovers} files left in the temporary directory")
        lines.append(f"{self.seconds:.0f} s in total; {len(self.problems)} violations")
        return "\n".join([*lines, *(f"PROBLEM  {line}" for line in self.problems)])


def torture(directory: Path, seconds: float, seed: int) -> Report:
    """Starts random commands on a new store, interrupts a third of them, and checks the results.

    Args:
        directory: existing empty directory for all files.
        seconds: time during which commands are started; the last ones are waited for.
        seed: seed that determines all choices.
    """
    began = time.monotonic()
    report = Report(directory.resolve(), seed)
    work = report.directory / "work"
    for name in ("work", "home", "tmp", "ui-tmp", "logs"):
        (report.directory / name).mkdir()
    spin = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(spin, start_new_session=True) for _ in range(SPINNERS)]
    over = threading.Event()
    browser = threading.Thread(target=_browse, args=(report, work, over))
    try:
        browser.start()
        with ThreadPoolExecutor(ACTORS) as actors:
            end = began + seconds
            futures = [actors.submit(_act, report, work, number, end) for number in range(ACTORS)]
        for future in futures:
            future.result()  # raises errors of this module
        for process in spinners:
            process.kill()
        report.problems += _kill_remaining(report.directory, EXIT_LIMIT)
        for kind in (NEXT, SYNC):
            command = Command(kind, report.directory / "logs" / f"last-{kind.name.replace(' ', '-')}", None)
            _run(command, command.kind.command, report.directory, work)
            report.commands.append(command)
            if command.code != 0:
                report.problems.append(f"{command}: exit code {command.code}, expected 0")
            if kind is NEXT:
                report.problems += _still_running(work)
        report.problems += _kill_remaining(report.directory, EXIT_LIMIT)
    finally:
        over.set()
        browser.join()
        for process in spinners:
            process.kill()
            process.wait()
        for _ in _kill_remaining(report.directory, 0.0):  # after an error of this module
            pass
    report.problems += [line for command in report.commands for line in command.problems()]
    report.problems += _check_temporary_files(report)
    try:
        report.problems += _compare(report, work)
    except sqlite3.Error as error:
        report.problems.append(f"the database cannot be read: {error}")
    report.seconds = time.monotonic() - began
    (report.directory / "report.txt").write_text(f"{report}\n")
    return report


def _environment(directory: Path, tmp: str = "tmp") -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
    own = {"HOME": str(directory / "home"), "TMPDIR": str(directory / tmp)}
    return kept | own | {"DO_NOT_TRACK": "true"}


def _act(report: Report, work: Path, number: int, end: float) -> None:
    """Runs the commands of an actor one after the other."""
    rng = random.Random(f"{report.seed} {number}")
    turn = 0
    while time.monotonic() < end:
        (kind,) = rng.choices(KINDS, [kind.weight for kind in KINDS])
        interruption = _choose_interruption(rng, kind) if rng.random() < INTERRUPTED else None
        picks = rng.random(), rng.random()
        name = f"{number}-{turn:02}-{kind.name.replace(' ', '-')}"
        command = Command(kind, report.directory / "logs" / name, interruption)
        arguments = kind.command
        if kind.name == "compare two":
            runs = sorted(path.parent for path in work.glob("outputs/*/*/run.json"))
            arguments += tuple(str(runs[int(pick * len(runs))]) for pick in picks) if runs else ("last",)
        report.commands.append(command)
        _run(command, arguments, report.directory, work)
        turn += 1


def _choose_interruption(rng: random.Random, kind: Kind) -> Interruption:
    ((number, target),) = rng.choices(list(INTERRUPTIONS), list(INTERRUPTIONS.values()))
    mark = rng.choice(MARKS) if kind.command[0] == RUN[0] else ""
    return Interruption(number, target, mark, rng.uniform(0.2, 8.0 if mark else 15.0))


def _run(command: Command, arguments: tuple[str, ...], directory: Path, work: Path) -> None:
    """Runs a command to its end, interrupts it if intended, and records the result."""
    began = sent = time.monotonic()
    with command.log.open("wb") as log:
        log.write(f"$ python {' '.join(arguments)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=work,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if command.interruption and _wait_for_moment(process, command.log, command.interruption, began + LIMIT):
        sent = time.monotonic()
        command.caught = _catches(process.pid, command.interruption.signal)
        command.interrupted = _interrupt(process, command.interruption)
    try:
        command.code = process.wait(began + LIMIT - time.monotonic())
    except subprocess.TimeoutExpired:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(Signals.SIGABRT)  # makes faulthandler print where it hangs
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, Signals.SIGKILL)
        process.wait()
    ended = time.monotonic()
    command.seconds, command.stopping = ended - began, ended - sent


def _wait_for_moment(
    process: "subprocess.Popen[bytes]", log: Path, interruption: Interruption, limit: float
) -> bool:
    """Waits until it is time to interrupt a command; returns False if the command ends before."""
    marks = interruption.mark.split("|")
    while not any(mark in log.read_text(errors="replace") for mark in marks):
        if process.poll() is not None or time.monotonic() > limit:
            return False
        time.sleep(0.1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(interruption.seconds)
        return False
    return True


def _interrupt(process: "subprocess.Popen[bytes]", interruption: Interruption) -> bool:
    """Sends the signal; returns whether there was a process to receive it."""
    sent = False
    mlflow = _mlflow_processes(process.pid) if "MLflow" in interruption.target else []
    with contextlib.suppress(ProcessLookupError):
        if interruption.target == "group":
            os.killpg(process.pid, interruption.signal)
            sent = True
        elif interruption.target.startswith("program"):
            process.send_signal(interruption.signal)
            sent = True
    for pid in mlflow:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, interruption.signal)
            sent = True
    return sent


def _mlflow_processes(pid: int) -> list[int]:
    """Returns the MLflow processes among the descendants of a process."""
    children_of: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children_of.setdefault(parent, []).append(int(path.parent.name))
    found, queue = [], [pid]
    while queue:
        children = children_of.get(queue.pop(), [])
        queue += children
        found += [each for each in children if b"mlflow_backend" in _bytes_of(each, "cmdline")]
    return found


def _bytes_of(pid: int, name: str) -> bytes:
    """Returns the content of a file in /proc; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _catches(pid: int, number: Signals) -> bool:
    """Returns whether the program has installed its handlers: Python itself does not handle SIGTERM."""
    if number == Signals.SIGKILL:
        return False
    for line in _bytes_of(pid, "status").decode().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (Signals.SIGTERM - 1) & 1)
    return False


def _kill_remaining(directory: Path, limit: float) -> list[str]:
    """Waits until all processes of commands have ended; kills the others, and describes them."""
    end = time.monotonic() + limit
    while (remaining := _processes(directory)) and time.monotonic() < end:
        time.sleep(0.2)
    problems = []
    for pid in remaining:
        what = _bytes_of(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")[:300]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, Signals.SIGKILL)
            problems.append(f"process {pid} is still running {limit:.0f} s after its command: {what}")
    return problems


def _processes(directory: Path) -> list[int]:
    """Returns the processes whose environment or working directory is that of the commands."""
    commands, ui = (f"TMPDIR={directory / name}".encode() for name in ("tmp", "ui-tmp"))
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        environment = _bytes_of(pid, "environ").split(b"\0")
        try:
            inside = (path / "cwd").readlink().is_relative_to(directory)
        except OSError:  # the process has ended, or belongs to another user
            inside = False
        if pid != os.getpid() and (commands in environment or (inside and ui not in environment)):
            found.append(pid)
    return found


def _browse(report: Report, work: Path, over: threading.Event) -> None:
    """Runs `mlflow ui` and sends requests to it, as soon as the database exists."""
    while not (work / "mlflow.db").exists():  # MLflow would create it without the program's lock
        if over.wait(0.2):
            return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", report.directory / "logs" / "mlflow-ui"
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=work,
            env=_environment(report.directory, "ui-tmp"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    began = time.monotonic()
    while not over.wait(0.5):
        if server.poll() is not None:
            report.problems.append(f"mlflow ui ended with exit code {server.returncode}, see {log}")
            break
        try:
            found = _post(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 100})
            ids = [each["experiment_id"] for each in found["experiments"]]
            _post(f"{url}/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 1000})
            report.responses += 1
        except urllib.error.HTTPError as error:
            report.failed_requests[f"times {error.code} {error.read(200).decode(errors='replace')}"] += 1
        except (OSError, ValueError) as error:
            if report.responses:  # before the first response, the server is starting
                report.failed_requests[f"times {getattr(error, 'reason', error)}"] += 1
    if not report.responses and time.monotonic() - began > EXIT_LIMIT:
        report.problems.append(f"mlflow ui never responded, see {log}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, Signals.SIGKILL)
    server.wait()
    printed = "\n".join([log.read_text(errors="replace"), *report.failed_requests])
    # It may print a traceback for the error of a client.
    words = [word for word in FORBIDDEN if word in printed and word != "Traceback"]
    report.problems += [f"mlflow ui: `{word}`, see {log}" for word in words]


def _post(url: str, what: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(what).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.loads(answer.read()))


@contextlib.contextmanager
def _database(work: Path) -> Iterator[sqlite3.Connection]:
    """Opens the database through SQLite, as opening the file in another way would release SQLite's locks."""
    path = urllib.parse.quote(str(work / "mlflow.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", timeout=60, uri=True)) as connection:
        yield connection


def _still_running(work: Path) -> list[str]:
    """Describes the runs that the next start has not closed."""
    try:
        with _database(work) as database:
            found = database.execute("SELECT run_uuid, name FROM runs WHERE status = 'RUNNING'").fetchall()
    except sqlite3.Error as error:
        return [f"after the next start, the database cannot be read: {error}"]
    return [f"still RUNNING after the next start: {run_id} ({name})" for run_id, name in found]


def _check_temporary_files(report: Report) -> Iterator[str]:
    """Describes files in the temporary directory that should have been removed."""
    tmp = report.directory / "tmp"
    names = sorted(path.name for path in tmp.iterdir())
    report.leftovers = len(names)
    generated = [name for name in names if name.startswith("__autograph_generated_file")]
    if generated:
        yield f"{len(generated)} files in TMPDIR such as {generated[0]}"
    own = [name for name in names if name.startswith("mlp_tape-")]  # which only SIGKILL may leave
    killed = [
        each
        for each in report.commands
        if each.interrupted and each.interruption and "KILL" in each.interruption.signal.name
    ]
    if len(own) > WORKERS * len(killed):
        yield f"{len(own)} directories in TMPDIR such as {own[0]}, after {len(killed)} times SIGKILL"


def _compare(report: Report, work: Path) -> list[str]:
    """Compares the database with the directories of the runs; returns the differences."""
    problems: list[str] = []
    with _database(work) as database:
        integrity = database.execute("PRAGMA integrity_check").fetchall()
        if integrity != [("ok",)]:
            problems.append(f"integrity_check: {len(integrity)} lines, such as {integrity[:3]}")
        status = dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
        tags: dict[str, dict[str, str]] = {run_id: {} for run_id in status}
        for run_id, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
            tags.setdefault(run_id, {})[key] = value
        report.runs = len(status)
        (report.rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
        records = _records(work, problems)
        problems += _one_to_one(report, status, tags, records)
        for directory, record in records.items():
            run_id = record["run_id"]
            if record["uri"] and not record["sent"]:
                problems.append(
                    f"{directory}: sync has not delivered it ({record['status']}, run_id {run_id!r})"
                )
            if record["status"] not in ("FINISHED", "FAILED", "KILLED"):
                problems.append(f"{directory}: its run.json says {record['status']}")
            if run_id in status and status[run_id] != record["status"]:
                problems.append(f"{directory}: run.json {record['status']}, database {status[run_id]}")
            if run_id in status and record["sent"]:
                problems += _compare_rows(database, directory, run_id)
    return problems


def _records(work: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the content of each run.json below outputs/ and multirun/, with `run_id` and `sent`."""
    found = {}
    for path in sorted([*work.glob("outputs/**/run.json"), *work.glob("multirun/**/run.json")]):
        try:
            record = dict(json.loads(path.read_bytes()))
            delivery = path.with_name("delivery.json")
            state = json.loads(delivery.read_bytes()) if delivery.exists() else {"run_id": "", "version": -1}
            record |= {"run_id": state["run_id"], "sent": state["version"] == record["version"]}
            found[str(path.parent)] = record
        except (ValueError, TypeError) as error:
            problems.append(f"{path}: {error}")
    return found


def _one_to_one(
    report: Report,
    status: dict[str, str],
    tags: dict[str, dict[str, str]],
    records: dict[str, dict[str, Any]],
) -> Iterator[str]:
    """Describes runs and directories that do not correspond one to one."""
    by_directory: dict[str, list[str]] = {}
    for run_id, tag in tags.items():
        if "directory" in tag:
            by_directory.setdefault(tag["directory"], []).append(run_id)
        else:
            yield f"run {run_id} ({status.get(run_id)}) has no tag `directory`"
    for directory, run_ids in by_directory.items():
        text = ", ".join(f"{run_id} {status.get(run_id)}" for run_id in run_ids)
        if len(run_ids) > 1:
            yield f"{directory}: {len(run_ids)} runs of one directory: {text}"
        if directory not in records:  # the run was killed before it was written
            report.without_record += len(run_ids)
            if any(status.get(run_id) == "RUNNING" for run_id in run_ids):
                yield f"{directory}: no run.json, but RUNNING: {text}"
        elif not records[directory]["run_id"]:
            yield f"{directory}: its run.json has no run id, the database has {text}"
    for directory, record in records.items():
        run_id = record["run_id"]
        if run_id and run_id not in status:
            yield f"{directory}: its run {run_id} is not in the database"
        elif run_id and tags[run_id].get("directory") != directory:
            yield f"{directory}: its run {run_id} has the directory {tags[run_id].get('directory')}"
        sweep = records.get(str(Path(directory).parent))
        if sweep and run_id in status and tags[run_id].get(PARENT) != sweep["run_id"]:
            yield f"{directory}: is nested below {tags[run_id].get(PARENT)}, the sweep is {sweep['run_id']}"
    for command in report.commands:
        if command.code == 0 and command.kind.name in ("run", "short run", "sweep", "joblib sweep"):
            yield from _check_output(command, records)


def _check_output(command: Command, records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Describes contradictions between the output of a successful command and the records."""
    printed = command.log.read_text(errors="replace").splitlines()
    directories = [line.partition(" ")[2].strip() for line in printed if line.startswith("directory ")]
    record = records.get(directories[0]) if directories else None
    if record is None or not record["run_id"]:
        yield f"{command}: exit code 0, and no run in MLflow has its directory: {directories}"
    elif record["kind"] == "sweep":
        jobs = [each for path, each in records.items() if str(Path(path).parent) == directories[0]]
        done = [each["name"] for each in jobs if each["status"] == "FINISHED" and each["run_id"]]
        planned = command.kind.command[-1].count(",") + 1
        if len(done) != planned or len(jobs) != planned:
            finished = f"{len(done)} of {planned} jobs FINISHED in MLflow"
            yield f"{command}: exit code 0, {finished}: {directories[0]}"


def _compare_rows(database: sqlite3.Connection, directory: str, run_id: str) -> list[str]:
    """Compares the rows of a journal with those in the database, as sets."""
    journal = Path(directory) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    # A kill may leave an incomplete line.
    complete = [json.loads(line) for line in lines if line.endswith(b"\n")]
    written = {(key, step, float(value), timestamp) for key, step, value, timestamp in complete}
    query = "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ?"
    stored = set(database.execute(query, (run_id,)).fetchall())
    problems = []
    if written - stored:
        problems.append(
            f"{directory}: {len(written - stored):,} of {len(written):,} rows are not in the database"
        )
    if stored - written:
        problems.append(f"{directory}: {len(stored - written):,} rows in the database are not in its journal")
    if len(complete) != len(written):
        problems.append(f"{directory}: {len(complete) - len(written):,} rows are duplicated in its journal")
    return problems
