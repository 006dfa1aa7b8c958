"""Imports go downwards, and the documentation is true of the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "mlp_tape"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_the_import_contracts_hold() -> None:
    """Those of `[tool.importlinter]` in pyproject.toml: the order of the packages, and who imports what."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_training_needs_neither_mlflow_nor_hydra() -> None:
    probe = "import mlp_tape.training.loop, sys; print({'mlflow', 'hydra', 'omegaconf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_packages_import_nothing_by_themselves() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)], path


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
