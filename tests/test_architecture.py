"""The import contracts hold, and the documentation matches the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "mlp_tape"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_import_contracts_hold() -> None:
    """The contracts are defined in `[tool.importlinter]` in pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_training_imports_neither_mlflow_nor_hydra() -> None:
    probe = "import mlp_tape.training.loop, sys; print({'mlflow', 'hydra', 'omegaconf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_package_init_files_import_nothing_but_the_standard_library() -> None:
    for path in [PACKAGE / "__init__.py", *PACKAGE.glob("*/__init__.py")]:
        nodes = ast.parse(path.read_text()).body  # without those for type checkers
        imported = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
        imported += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        assert set(imported) <= {"os", "importlib", "typing"}, path


def test_program_does_not_use_keras() -> None:
    for path in MODULES:
        assert not re.search(r"tf\.keras|import keras|keras\.", path.read_text().replace('.keras"', ""))


def test_ci_runs_both_installation_commands_of_the_readme() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    patterns = re.findall(r"grep -E '([^']+)' README\.md", ci)
    (main,), (tests,) = (re.findall(pattern, readme, re.M) for pattern in patterns)
    assert main.endswith(".venv/bin/pip install -e . && .venv/bin/python run.py")
    assert tests.endswith(".venv/bin/pip install -e '.[dev]' && .venv/bin/python -m pytest")
    assert ci.count('eval "$command"') == 2


def test_documentation_lists_every_package_module_and_setting() -> None:
    from mlp_tape.config.settings import Settings, flatten

    architecture, settings = (
        (ROOT / "docs" / f"{page}.md").read_text() for page in ("architecture", "settings")
    )
    packages = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert [name for name in packages if f"\n| `{name}/` |" not in architecture] == []
    for path in MODULES:
        package, module = path.parent.name, path.stem
        if package in packages:
            (row,) = [line for line in architecture.splitlines() if line.startswith(f"| `{package}/` |")]
            assert f"`{module}`" in row, f"{package}/{module}"
    assert [key for key, _ in flatten(Settings()) if f"`{key}`" not in settings] == []


def test_code_blocks_of_the_tutorial_are_excerpts_of_the_program() -> None:
    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.splitlines() if line.strip()]

    sources = ["\n".join(lines(path.read_text())) for path in MODULES]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.S)
    assert len(blocks) >= 5
    for block in blocks:
        assert any("\n".join(lines(block)) in source for source in sources), block


def test_relative_links_in_the_documentation_resolve() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            target, _, anchor = link.partition("#")
            if "://" in target:
                continue
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name}: {link}"
            if anchor and path.suffix == ".md":
                titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
                anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
                assert anchor in anchors, f"{page.name}: {link}"
