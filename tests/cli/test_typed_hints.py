"""Hints of error messages that contain something to type: it is typed, and works."""

import ast
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT, Run, sample
from corpus import CASES, Case, save
from hints import alternatives
from mlp_tape.cli import composition, search_options
from mlp_tape.cli.command_line import parse
from mlp_tape.errors import ConfigError

CONF = ROOT / "conf"
# What a hint leaves to the reader, and a value for it.
PLACEHOLDERS = {"FILE.npz": "there.npz", "FILE": "there.npz", "DIRECTORY": ".", "PATH": "there.npz"}
SWEPT = re.compile(r"\b(interval|range|choice)\(")
OPEN = re.compile(r"\.\.\.|\b[A-Z]{2,}_?[A-Z]*\b|[{}]$")
IN_PROCESS = [
    case
    for case in CASES
    if case.file is None and not case.environment and not any(text.startswith("-") for text in case.arguments)
]
PROCESSES = [case for case in CASES if case not in IN_PROCESS]


def replaced(typed: list[str], line: list[str]) -> list[str]:
    """Returns a command line with what a hint proposes, in place of what it corrects: the last override."""
    keys = {word.lstrip("+~").partition("=")[0] for word in line}
    kept = [
        text
        for text in typed[:-1]
        if text.lstrip("+~").partition("=")[0] not in keys and not text.startswith("-")
    ]
    return [*kept, *line]


def filled_in(line: list[str]) -> list[str] | None:
    """Returns a line with a value for each placeholder; None if there is one without a value."""
    words = []
    for word in line:
        key, _, value = word.partition("=")
        value = PLACEHOLDERS.get(value, value)
        of_plugin = key.startswith("hydra") or key in search_options.SHORT
        if OPEN.search(value) or "{}" in word or of_plugin or SWEPT.search(value):  # not of a single run
            return None
        words.append(f"{key}={value}" if "=" in word else word)
    return words


def outcome(hint: str, typed: list[str], failures: list[str]) -> str:
    """Types each line of a hint, and returns the outcome."""
    lines = alternatives(hint)
    if not lines:
        return "have nothing to type"
    for line in lines:
        words = filled_in(line)
        if words is None:
            return "leave a value to the reader"
        try:
            composition.settings_of(
                CONF, replaced(typed, [word for word in words if not word.startswith("-")])
            )
        except ConfigError as error:
            failures.append(f"{shlex.join(typed)}: {hint}: {error}")
            return "do not work"
    return "work"


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "every", [10, pytest.param(5, marks=LONG), pytest.param(1, marks=[LONG, pytest.mark.soak])]
)
def test_hints_of_the_corpus_work_when_they_are_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, every: int
) -> None:
    monkeypatch.chdir(tmp_path)
    save()(tmp_path / "there.npz")
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    for case in IN_PROCESS[::every]:
        check(case, outcomes, failures)
    print(
        f"\n{sum(outcomes.values())} hints of settings: "
        + ", ".join(f"{n} {text}" for text, n in outcomes.items())
    )
    assert not failures, "\n".join(failures)
    assert outcomes["work"] > 5


def check(case: Case, outcomes: Counter[str], failures: list[str]) -> None:
    try:
        composition.settings_of(CONF, parse(case.arguments).overrides)
    except ConfigError as error:
        outcomes[outcome(error.hint, case.arguments, failures)] += 1
    else:
        outcomes["are given later, by the run"] += 1


@pytest.mark.parametrize("case", sample(PROCESSES), ids=lambda case: " ".join(case.arguments)[:60])
def test_hints_of_files_stores_and_sweeps_work_when_they_are_typed(
    run_py: Run, tmp_path: Path, case: Case
) -> None:
    """The correction is composed, in the directory of the command: a run would take long."""
    save()(tmp_path / "there.npz")
    if case.file is not None:
        case.file(tmp_path / "data.npz")
    refused = run_py(tmp_path, *case.arguments, **case.environment)
    assert refused.returncode == 2
    _, hint = refused.stderr.splitlines()
    for line in alternatives(hint):
        words = filled_in(line)
        if words is not None:
            options = [word for word in case.arguments if word in ("-m",)]
            known = [word for word in replaced(case.arguments, words) if word not in options]
            done = run_py(tmp_path, *options[:0], "--cfg", "job", *known)
            assert done.returncode == 0, f"{hint}\n{done.stderr}"


def literal_hints() -> list[tuple[str, str]]:
    """Returns place and text of each hint in the source, with `{}` for what is inserted."""
    found = []
    for path in sorted((ROOT / "mlp_tape").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and len(node.args) == 2
                and ast.unparse(node.func).endswith("Error")
            ):
                found += [(f"{path.name}:{node.lineno}", text) for text in texts(node.args[1])]
    return found


def texts(node: ast.expr) -> list[str]:
    """Returns the texts that an expression may have, with `{}` for what is inserted."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)]
    if isinstance(node, ast.IfExp):
        return [*texts(node.body), *texts(node.orelse)]
    if isinstance(node, ast.BinOp):
        return texts(node.left)
    return []


def test_each_command_in_a_hint_of_the_source_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    save()(tmp_path / "there.npz")
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    hints = literal_hints()
    assert len(hints) > 80
    for place, hint in hints:
        outcomes[outcome(hint, [place], failures)] += 1
    print(f"\n{len(hints)} hints in the source: " + ", ".join(f"{n} {text}" for text, n in outcomes.items()))
    assert not failures, "\n".join(failures)
