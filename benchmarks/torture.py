"""The embedded store under torture: random commands beside each other, killed at random, then what is left.

All choices follow from a seed: what each of the actors types, which of its commands are struck, how, and how
long after which line of output. What then meets what is up to the machine.
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
WORKERS = 3  # processes of a command with a temporary directory of their own, at the most
STRUCK = 0.45  # the share of the commands that are to be struck; some end before, so that a third is
LIMIT = 900.0  # seconds for one command; a joblib sweep was seen to take 250 where others work beside it
GOING = 60.0  # seconds for the processes of commands that have ended
AT_ONCE = 300.0  # seconds from a signal to the exit, far beyond need; the report has the real ones
PARENT = "mlflow.parentRunId"

# What no command may ever print. The first also stands in a traceback of a thread.
NEVER = (
    "Traceback",
    "Fatal Python",
    "malformed",
    "terminate called",
    "is not a database",
    "no sqlite database",
    "disk I/O error",
    "is damaged",
)
MARKS = ("", "\ndata  |\nsweep  ", "\nepoch |  began\n")  # at once, once something is said, once it trains


@dataclass(frozen=True)
class Kind:
    """One of the commands that are typed.

    Attributes:
        name: as the figures have it.
        command: all behind the interpreter.
        codes: exit codes where nobody strikes it.
        weight: how often it is typed, relative to others.
        sweeps: whether it may have jobs, one of which can fail alone.
    """

    name: str
    command: tuple[str, ...]
    codes: frozenset[int]
    weight: int = 2
    sweeps: bool = False


def _typed(text: str) -> tuple[str, ...]:
    return (*RUN, *text.split())


KINDS = [
    Kind("run", _typed("dataset=mnist_5k epochs=20 lr=0.1"), frozenset({0}), 3),
    Kind("short run", _typed("dataset=digits epochs=1 report=none"), frozenset({0})),
    Kind("sweep", _typed("-m dataset=digits epochs=20 lr=0.1,0.2,0.3"), frozenset({0}), 3, True),
    Kind(
        "joblib sweep",
        _typed(f"-m {JOBLIB} dataset=digits epochs=30 lr=0.1,0.2,0.3,0.4"),
        frozenset({0}),
        2,
        True,
    ),
    Kind("divergence", _typed("dataset=digits lr=1e20"), frozenset({1}), 1),
    Kind("resume", _typed("resume=last"), frozenset({0, 1, 2})),
    Kind("sweep.resume", _typed("-m sweep.resume=last"), frozenset({0, 1, 2}), 2, True),
    Kind("sync", (*TOOL, "sync"), frozenset({0, 1, 2}), 1),
    Kind("compare last", (*TOOL, "compare", "last"), frozenset({0, 2}), 1),
    Kind("compare two", (*TOOL, "compare"), frozenset({0, 2}), 1),
]
NEXT, SYNC = KINDS[1], KINDS[7]

# Signal, whom it meets, and how often. A terminal's Ctrl-C meets the whole group.
BLOWS = {
    (Signals.SIGKILL, "program"): 4,
    (Signals.SIGKILL, "program and MLflow's process"): 2,
    (Signals.SIGKILL, "MLflow's process"): 2,
    (Signals.SIGINT, "program"): 1,
    (Signals.SIGINT, "group"): 2,
    (Signals.SIGTERM, "program"): 2,
    (Signals.SIGTERM, "group"): 1,
}


@dataclass(frozen=True)
class Blow:
    """How a command is to be struck.

    Attributes:
        signal: what is sent.
        whom: one of the program itself, its group, and the process in which its MLflow is.
        mark: texts of the log, one of which is awaited first, with bars between them; may be empty.
        seconds: from there to the blow.
    """

    signal: Signals
    whom: str
    mark: str
    seconds: float


@dataclass
class Command:
    """A command, and what became of it.

    Attributes:
        kind: which it is.
        log: of all that it printed.
        blow: how it was to be struck; None for one that is left alone.
        struck: whether that met somebody.
        caught: whether the program had begun to catch that signal by then.
        code: as `subprocess` has it; None for one that hung.
        seconds: from start to exit.
        dying: seconds from blow to exit.
    """

    kind: Kind
    log: Path
    blow: Blow | None
    struck: bool = False
    caught: bool = False
    code: int | None = None
    seconds: float = 0.0
    dying: float = 0.0

    @property
    def promised(self) -> frozenset[int]:
        """The exit codes that it may have."""
        if not self.blow or not self.struck:
            return self.kind.codes
        if self.blow.whom == "MLflow's process":  # before the run was opened, that is exit code 2
            return self.kind.codes | ({0, 1, 2} if self.kind.sweeps else {0, 2})
        if self.blow.signal == Signals.SIGKILL:
            return self.kind.codes | {-Signals.SIGKILL}
        early = frozenset() if self.caught else frozenset({-self.blow.signal})
        return self.kind.codes | {128 + self.blow.signal} | early

    def __str__(self) -> str:
        text = f"{self.log.name} ({self.kind.name}"
        if self.blow and self.struck:
            early = "" if self.caught or self.blow.signal == Signals.SIGKILL else ", not yet caught"
            text += f", {self.blow.signal.name} to {self.blow.whom}{early}, {self.dying:.1f} s before its end"
        return f"{text}, {self.seconds:.0f} s)"

    def wrong(self) -> Iterator[str]:
        """Yields what it should not have done."""
        if self.code is None:
            yield f"{self}: hung for {LIMIT:.0f} s"
            return
        printed = self.log.read_text(errors="replace")
        if self.code not in self.promised:
            last = " | ".join(printed.strip().splitlines()[-3:])
            yield f"{self}: exit code {self.code}, promised are {sorted(self.promised)}: {last[-400:]}"
        if self.kind.name == "resume" and self.code == 1 and "the loss is" not in printed:
            yield f"{self}: exit code 1 without a divergence: {printed[-400:]}"
        ordered = self.struck and self.caught and self.blow and self.blow.whom != "MLflow's process"
        if ordered and self.dying > AT_ONCE:
            yield f"{self}: did not end within {AT_ONCE:.0f} s"
        early = self.struck and self.blow and self.blow.signal == Signals.SIGINT and not self.caught
        for word in NEVER:
            if word in printed and not (early and word == "Traceback"):  # Ctrl-C while Python itself starts
                (line, *_) = [line for line in printed.splitlines() if word in line]
                yield f"{self}: its log has `{word}`: {line[:200]} ... {printed.strip()[-300:]!r}"


@dataclass
class Report:
    """What a torture came to.

    Attributes:
        directory: where it was.
        seed: that all choices follow from.
        seconds: that it took altogether.
        commands: all that were started.
        runs: in the database.
        rows: of metrics in the database.
        without_record: runs that were killed between their creation and the writing of run.json.
        answers: of `mlflow ui`.
        silence: requests that `mlflow ui` did not answer, or with an error, by kind.
        litter: files left in the temporary directory.
        wrong: every violation, a line each.
    """

    directory: Path
    seed: int
    seconds: float = 0.0
    commands: list[Command] = field(default_factory=list)
    runs: int = 0
    rows: int = 0
    without_record: int = 0
    answers: int = 0
    silence: Counter[str] = field(default_factory=Counter)
    litter: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        struck = [command for command in self.commands if command.struck]
        blows = Counter(f"{each.blow.signal.name} to {each.blow.whom}" for each in struck if each.blow)
        orders = [each for each in struck if each.caught and each.blow and each.blow.signal.name != "SIGKILL"]
        ordered = sorted(each.dying for each in orders)
        lines = [f"seed {self.seed}: {len(self.commands)} commands, {len(struck)} of them killed"]
        for kind in KINDS:
            codes = Counter(str(each.code) for each in self.commands if each.kind is kind)
            told = ", ".join(f"{count} with exit code {code}" for code, count in sorted(codes.items()))
            lines += [f"  {codes.total():3} {kind.name}: {told}"] if codes else []
        lines += [f"  {count:3} struck by {blow}" for blow, count in sorted(blows.items())]
        if ordered:
            told = f"{ordered[-1]:.1f} s at most, {ordered[len(ordered) // 2]:.1f} s in the middle"
            lines.append(f"from SIGINT or SIGTERM to the exit: {told}, with no core free")
        unanswered = ", ".join(f"{count} {what}" for what, count in self.silence.items()) or "no errors"
        lines.append(f"mlflow ui: {self.answers} answers; {unanswered}")
        early = f"{self.without_record} of them killed before their run.json was there"
        lines.append(f"{self.runs} runs in the database, {early}; {self.rows:,} rows")
        lines.append(f"{self.litter} files left in the temporary directory")
        lines.append(f"{self.seconds:.0f} s altogether; {len(self.wrong)} violations")
        return "\n".join([*lines, *(f"WRONG  {line}" for line in self.wrong)])


def torture(directory: Path, seconds: float, seed: int) -> Report:
    """Starts random commands on one fresh store, kills a third of them, and looks at what is left.

    Args:
        directory: exists and is empty; all that is written lies in it.
        seconds: during which commands are started; the last ones are waited for.
        seed: of all choices.
    """
    began = time.monotonic()
    report = Report(directory.resolve(), seed)
    place = report.directory / "place"
    for name in ("place", "home", "tmp", "ui-tmp", "logs"):
        (report.directory / name).mkdir()
    spin = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(spin, start_new_session=True) for _ in range(SPINNERS)]
    over = threading.Event()
    browser = threading.Thread(target=_browse, args=(report, place, over))
    try:
        browser.start()
        with ThreadPoolExecutor(ACTORS) as actors:
            end = began + seconds
            acted = [actors.submit(_act, report, place, number, end) for number in range(ACTORS)]
        for each in acted:
            each.result()  # raises what went wrong in here
        for process in spinners:
            process.kill()
        report.wrong += _left_over(report.directory, GOING)
        for kind in (NEXT, SYNC):
            command = Command(kind, report.directory / "logs" / f"last-{kind.name.replace(' ', '-')}", None)
            _run(command, command.kind.command, report.directory, place)
            report.commands.append(command)
            if command.code != 0:
                report.wrong.append(f"{command}: exit code {command.code}, and 0 was due")
            if kind is NEXT:
                report.wrong += _left_running(place)
        report.wrong += _left_over(report.directory, GOING)
    finally:
        over.set()
        browser.join()
        for process in spinners:
            process.kill()
            process.wait()
        for _ in _left_over(report.directory, 0.0):  # after an error in here
            pass
    report.wrong += [line for command in report.commands for line in command.wrong()]
    report.wrong += _litter(report)
    try:
        report.wrong += _compared(report, place)
    except sqlite3.Error as error:
        report.wrong.append(f"the database cannot be read: {error}")
    report.seconds = time.monotonic() - began
    (report.directory / "report.txt").write_text(f"{report}\n")
    return report


def _environment(directory: Path, tmp: str = "tmp") -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
    own = {"HOME": str(directory / "home"), "TMPDIR": str(directory / tmp)}
    return kept | own | {"DO_NOT_TRACK": "true"}


def _act(report: Report, place: Path, number: int, end: float) -> None:
    """One actor: a command after the other."""
    dice = random.Random(f"{report.seed} {number}")
    turn = 0
    while time.monotonic() < end:
        (kind,) = dice.choices(KINDS, [kind.weight for kind in KINDS])
        blow, picks = _blow(dice, kind) if dice.random() < STRUCK else None, (dice.random(), dice.random())
        name = f"{number}-{turn:02}-{kind.name.replace(' ', '-')}"
        command = Command(kind, report.directory / "logs" / name, blow)
        arguments = kind.command
        if kind.name == "compare two":
            there = sorted(path.parent for path in place.glob("outputs/*/*/run.json"))
            arguments += tuple(str(there[int(pick * len(there))]) for pick in picks) if there else ("last",)
        report.commands.append(command)
        _run(command, arguments, report.directory, place)
        turn += 1


def _blow(dice: random.Random, kind: Kind) -> Blow:
    ((number, whom),) = dice.choices(list(BLOWS), list(BLOWS.values()))
    mark = dice.choice(MARKS) if kind.command[0] == RUN[0] else ""
    return Blow(number, whom, mark, dice.uniform(0.2, 8.0 if mark else 15.0))


def _run(command: Command, arguments: tuple[str, ...], directory: Path, place: Path) -> None:
    """Runs a command to its end, strikes it where that is due, and notes what became of it."""
    began = struck = time.monotonic()
    with command.log.open("wb") as log:
        log.write(f"$ python {' '.join(arguments)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=place,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if command.blow and _came(process, command.log, command.blow, began + LIMIT):
        struck = time.monotonic()
        command.caught = _catches(process.pid, command.blow.signal)
        command.struck = _strike(process, command.blow)
    try:
        command.code = process.wait(began + LIMIT - time.monotonic())
    except subprocess.TimeoutExpired:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(Signals.SIGABRT)  # faulthandler prints where it hangs
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, Signals.SIGKILL)
        process.wait()
    ended = time.monotonic()
    command.seconds, command.dying = ended - began, ended - struck


def _came(process: "subprocess.Popen[bytes]", log: Path, blow: Blow, limit: float) -> bool:
    """Waits for the moment of a blow; False if the command is over before it."""
    marks = blow.mark.split("|")
    while not any(mark in log.read_text(errors="replace") for mark in marks):
        if process.poll() is not None or time.monotonic() > limit:
            return False
        time.sleep(0.1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(blow.seconds)
        return False
    return True


def _strike(process: "subprocess.Popen[bytes]", blow: Blow) -> bool:
    """Sends the signal; returns whether there was somebody."""
    met = False
    keepers = _keepers(process.pid) if "MLflow" in blow.whom else []
    with contextlib.suppress(ProcessLookupError):
        if blow.whom == "group":
            os.killpg(process.pid, blow.signal)
            met = True
        elif blow.whom.startswith("program"):
            process.send_signal(blow.signal)
            met = True
    for pid in keepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, blow.signal)
            met = True
    return met


def _keepers(pid: int) -> list[int]:
    """The processes below another one in which its MLflow is."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it is over
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            below.setdefault(parent, []).append(int(path.parent.name))
    found, queue = [], [pid]
    while queue:
        children = below.get(queue.pop(), [])
        queue += children
        found += [each for each in children if b"keeper" in _bytes_of(each, "cmdline")]
    return found


def _bytes_of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _catches(pid: int, number: Signals) -> bool:
    """Whether a process handles SIGTERM, which Python itself does not: its own handlers are there."""
    if number == Signals.SIGKILL:
        return False
    for line in _bytes_of(pid, "status").decode().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (Signals.SIGTERM - 1) & 1)
    return False


def _left_over(directory: Path, limit: float) -> list[str]:
    """Waits until no process of a command is left; kills and returns those that stay."""
    end = time.monotonic() + limit
    while (left := _processes(directory)) and time.monotonic() < end:
        time.sleep(0.2)
    wrong = []
    for pid in left:
        what = _bytes_of(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")[:300]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, Signals.SIGKILL)
            wrong.append(f"process {pid} outlives its command by {limit:.0f} s: {what}")
    return wrong


def _processes(directory: Path) -> list[int]:
    """The processes whose environment or working directory is that of the commands."""
    theirs, the_ui = (f"TMPDIR={directory / name}".encode() for name in ("tmp", "ui-tmp"))
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        environment = _bytes_of(pid, "environ").split(b"\0")
        try:
            inside = (path / "cwd").readlink().is_relative_to(directory)
        except OSError:  # it is over, or somebody else's
            inside = False
        if pid != os.getpid() and (theirs in environment or (inside and the_ui not in environment)):
            found.append(pid)
    return found


def _browse(report: Report, place: Path, over: threading.Event) -> None:
    """Keeps an `mlflow ui` answering, from the moment the database is there."""
    while not (place / "mlflow.db").exists():  # MLflow itself would make it, and without the program's lock
        if over.wait(0.2):
            return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", report.directory / "logs" / "mlflow-ui"
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=place,
            env=_environment(report.directory, "ui-tmp"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    began = time.monotonic()
    while not over.wait(0.5):
        if server.poll() is not None:
            report.wrong.append(f"mlflow ui ended with exit code {server.returncode}, see {log}")
            break
        try:
            found = _asked(f"{address}/api/2.0/mlflow/experiments/search", {"max_results": 100})
            ids = [each["experiment_id"] for each in found["experiments"]]
            _asked(f"{address}/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 1000})
            report.answers += 1
        except urllib.error.HTTPError as error:
            report.silence[f"times {error.code} {error.read(200).decode(errors='replace')}"] += 1
        except (OSError, ValueError) as error:
            if report.answers:  # before the first one, it is starting
                report.silence[f"times {getattr(error, 'reason', error)}"] += 1
    if not report.answers and time.monotonic() - began > GOING:
        report.wrong.append(f"mlflow ui never answered, see {log}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, Signals.SIGKILL)
    server.wait()
    printed = "\n".join([log.read_text(errors="replace"), *report.silence])
    words = [
        word for word in NEVER if word in printed and word != "Traceback"
    ]  # which it may print of a client
    report.wrong += [f"mlflow ui: `{word}`, see {log}" for word in words]


def _asked(url: str, what: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(what).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.loads(answer.read()))


@contextlib.contextmanager
def _database(place: Path) -> Iterator[sqlite3.Connection]:
    """The database, by way of SQLite alone: whoever opens the file otherwise loses SQLite's locks on it."""
    path = urllib.parse.quote(str(place / "mlflow.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", timeout=60, uri=True)) as connection:
        yield connection


def _left_running(place: Path) -> list[str]:
    """The runs that the next start has not closed."""
    try:
        with _database(place) as database:
            found = database.execute("SELECT run_uuid, name FROM runs WHERE status = 'RUNNING'").fetchall()
    except sqlite3.Error as error:
        return [f"after the next start, the database cannot be read: {error}"]
    return [f"left RUNNING after the next start: {run_id} ({name})" for run_id, name in found]


def _litter(report: Report) -> Iterator[str]:
    """Yields what is left in the temporary directory and must not be."""
    tmp = report.directory / "tmp"
    left = sorted(path.name for path in tmp.iterdir())
    report.litter = len(left)
    generated = [name for name in left if name.startswith("__autograph_generated_file")]
    if generated:
        yield f"{len(generated)} files in TMPDIR such as {generated[0]}"
    own = [name for name in left if name.startswith("mlp_tape-")]  # which SIGKILL alone may leave
    killed = [
        each for each in report.commands if each.struck and each.blow and "KILL" in each.blow.signal.name
    ]
    if len(own) > WORKERS * len(killed):
        yield f"{len(own)} directories in TMPDIR such as {own[0]}, after {len(killed)} blows by SIGKILL"


def _compared(report: Report, place: Path) -> list[str]:
    """Compares the database with the directories of the runs; returns the differences."""
    wrong: list[str] = []
    with _database(place) as database:
        whole = database.execute("PRAGMA integrity_check").fetchall()
        if whole != [("ok",)]:
            wrong.append(f"integrity_check: {len(whole)} lines, such as {whole[:3]}")
        status = dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
        tags: dict[str, dict[str, str]] = {run_id: {} for run_id in status}
        for run_id, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
            tags.setdefault(run_id, {})[key] = value
        report.runs = len(status)
        (report.rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
        records = _records(place, wrong)
        wrong += _one_to_one(report, status, tags, records)
        for directory, record in records.items():
            run_id = record["run_id"]
            if record["uri"] and not record["sent"]:
                wrong.append(f"{directory}: sync has not sent it ({record['status']}, run_id {run_id!r})")
            if record["status"] not in ("FINISHED", "FAILED", "KILLED"):
                wrong.append(f"{directory}: its run.json says {record['status']}")
            if run_id in status and status[run_id] != record["status"]:
                wrong.append(f"{directory}: run.json {record['status']}, database {status[run_id]}")
            if run_id in status and record["sent"]:
                wrong += _rows_compared(database, directory, run_id)
    return wrong


def _records(place: Path, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """The run.json below outputs/ and multirun/, by the directory."""
    found = {}
    for path in sorted([*place.glob("outputs/**/run.json"), *place.glob("multirun/**/run.json")]):
        try:
            found[str(path.parent)] = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            wrong.append(f"{path}: {error}")
    return found


def _one_to_one(
    report: Report,
    status: dict[str, str],
    tags: dict[str, dict[str, str]],
    records: dict[str, dict[str, Any]],
) -> Iterator[str]:
    """Yields where runs and directories do not correspond."""
    by_directory: dict[str, list[str]] = {}
    for run_id, tag in tags.items():
        if "directory" in tag:
            by_directory.setdefault(tag["directory"], []).append(run_id)
        else:
            yield f"run {run_id} ({status.get(run_id)}) has no tag `directory`"
    for directory, run_ids in by_directory.items():
        told = ", ".join(f"{run_id} {status.get(run_id)}" for run_id in run_ids)
        if len(run_ids) > 1:
            yield f"{directory}: {len(run_ids)} runs of one directory: {told}"
        if directory not in records:  # killed before it was written
            report.without_record += len(run_ids)
            if any(status.get(run_id) == "RUNNING" for run_id in run_ids):
                yield f"{directory}: no run.json, but RUNNING: {told}"
        elif not records[directory]["run_id"]:
            yield f"{directory}: its run.json knows of no run, the database of {told}"
    for directory, record in records.items():
        run_id = record["run_id"]
        if run_id and run_id not in status:
            yield f"{directory}: its run {run_id} is not in the database"
        elif run_id and tags[run_id].get("directory") != directory:
            yield f"{directory}: its run {run_id} has the directory {tags[run_id].get('directory')}"
        sweep = records.get(str(Path(directory).parent))
        if sweep and run_id in status and tags[run_id].get(PARENT) != sweep["run_id"]:
            yield f"{directory}: stands below {tags[run_id].get(PARENT)}, the sweep is {sweep['run_id']}"
    for command in report.commands:
        if command.code == 0 and command.kind.name in ("run", "short run", "sweep", "joblib sweep"):
            yield from _as_told(command, records)


def _as_told(command: Command, records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields what a command that ended well said and what is not so."""
    printed = command.log.read_text(errors="replace").splitlines()
    told = [line.partition(" ")[2].strip() for line in printed if line.startswith("directory ")]
    record = records.get(told[0]) if told else None
    if record is None or not record["run_id"]:
        yield f"{command}: exit code 0, and no run in MLflow has its directory: {told}"
    elif record["kind"] == "sweep":
        jobs = [each for path, each in records.items() if str(Path(path).parent) == told[0]]
        done = [each["name"] for each in jobs if each["status"] == "FINISHED" and each["run_id"]]
        planned = command.kind.command[-1].count(",") + 1
        if len(done) != planned or len(jobs) != planned:
            yield f"{command}: exit code 0, {len(done)} of {planned} jobs FINISHED in MLflow: {told[0]}"


def _rows_compared(database: sqlite3.Connection, directory: str, run_id: str) -> list[str]:
    """Compares a journal's rows with the database's, as sets."""
    journal = Path(directory) / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a kill may leave half a line
    written = {(key, step, float(value), timestamp) for key, step, value, timestamp in whole}
    query = "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ?"
    held = set(database.execute(query, (run_id,)).fetchall())
    wrong = []
    if written - held:
        wrong.append(f"{directory}: {len(written - held):,} of {len(written):,} rows are not in the database")
    if held - written:
        wrong.append(f"{directory}: {len(held - written):,} rows in the database that its journal has not")
    if len(whole) != len(written):
        wrong.append(f"{directory}: {len(whole) - len(written):,} rows stand twice in its journal")
    return wrong
