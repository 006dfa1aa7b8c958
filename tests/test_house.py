"""The order of the house: imports go downwards, and the README says what is so."""

import ast
import re
from pathlib import Path

import pytest

from conftest import ROOT

# Each module may import those before it, and no other.
ORDER = [
    "errors",
    "redact",
    "system.exit",
    "system.sqlite_file",
    "ranges",
    "config",
    "checking",
    "files",
    "xla_cache",
    "quiet",
    "stop",
    "journal",
    "checkpoint",
    "presence",
    "record",
    "page",
    "address",
    "tracker",
    "result",
    "delivery",
    "memory",
    "sources",
    "own",
    "data",
    "ledger",
    "provenance",
    "noting",
    "summary",
    "console",
    "watch",
    "drawing",
    "text_plots",
    "curve_plots",
    "answer_plots",
    "histograms",
    "snapshots",
    "weight_plots",
    "sweep_plots",
    "serving",
    "draws",
    "activations",
    "initializers",
    "losses",
    "augmentation",
    "schedules",
    "model",
    "optimizer",
    "step",
    "state",
    "walk",
    "batches",
    "steps",
    "measures",
    "train",
    "evaluate",
    "selection",
    "plan",
    "divergence",
    "lesson",
    "saved_model",
    "logged_model",
    "store",
    "tracking",
    "machine",
    "fit",
    "report",
    "keeper_process",
    "courier",
    "recording",
    "resume",
    "comparison",
    "sync",
    "mlflow_backend.rebuild",
    "keeper",
    "runner",
    "job",
    "sweep_report",
    "sweep",
    "workers",
    "multirun",
    "telling",
    "cli",
    "tools",
    "__main__",
]
TENSORS = {*ORDER[ORDER.index("draws") : ORDER.index("evaluate") + 1]} - {"state"}
TENSORS |= {"divergence", "lesson", "quiet", "saved_model"}
NEVER = {
    "tensorflow": set(ORDER) - TENSORS,
    "mlflow": set(ORDER)
    - {"store", "tracking", "machine", "logged_model", "serving", "mlflow_backend.rebuild"},
    "hydra": set(ORDER) - {"cli", "telling", "multirun", "workers"},
    "joblib": set(ORDER) - {"workers"},
    "pathlib": {
        "model",
        "optimizer",
        "step",
        "walk",
        "batches",
        "histograms",
        "steps",
        "measures",
        "train",
        "evaluate",
        "plan",
    },  # training knows of no file
    "mlp_tape": {"serving"},  # MLflow copies it into the logged model
}
PACKAGE = ROOT / "mlp_tape"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    """The name of a module within the package, such as `system.exit`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere, such as `tensorflow` or `mlp_tape.config.settings`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def test_every_module_has_its_place() -> None:
    assert {name_of(path) for path in MODULES} == {*ORDER}
    for path in PACKAGE.rglob("__init__.py"):
        assert not imported(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    below = set(ORDER[: ORDER.index(name_of(path))])
    ours = {name.removeprefix("mlp_tape.") for name in imported(path) if name.startswith("mlp_tape.")}
    assert ours & set(ORDER) <= below


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_keeps_away_from_what_it_must_not_know(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)}
    assert not {package for package, modules in NEVER.items() if name_of(path) in modules} & packages


def test_no_keras_in_the_program() -> None:
    for path in MODULES:
        assert not re.search(r"tf\.keras|import keras|keras\.", path.read_text().replace('.keras"', ""))


def test_ci_runs_both_commands_that_the_readme_prints() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    patterns = re.findall(r"grep -E '([^']+)' README\.md", ci)
    (main,), (tests,) = (re.findall(pattern, readme, re.M) for pattern in patterns)
    assert main.endswith(".venv/bin/pip install -e . && .venv/bin/python run.py")
    assert tests.endswith(".venv/bin/pip install -e '.[dev]' && .venv/bin/python -m pytest")
    assert ci.count('eval "$command"') == 2


def test_the_readme_names_every_module_and_setting() -> None:
    from mlp_tape.config.settings import Settings, flatten

    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in MODULES if f"`{path.relative_to(PACKAGE)}`" not in readme] == []
    assert [key for key, _ in flatten(Settings()) if f"`{key}`" not in readme] == []
