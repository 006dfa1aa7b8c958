"""The undocumented parts of Hydra that this package uses."""

import re
import sys
from pathlib import Path

import hydra
import pytest

from conftest import ROOT, Run
from mlp_tape.cli import hydra_internals


def test_the_installed_hydra_has_all_of_them() -> None:
    assert hydra_internals.missing() == [], (
        f"Hydra {hydra.__version__} lacks these names; mlp_tape/cli/hydra_internals.py describes the "
        "purpose of each, and what happens without it"
    )


def test_a_missing_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = hydra_internals.PARSER.partition(":")
    monkeypatch.delattr(sys.modules[module], name)
    assert hydra_internals.missing() == [hydra_internals.PARSER]
    assert hydra_internals.arguments_parser() is None


def test_no_other_module_uses_private_parts_of_hydra() -> None:
    used = [
        path.name
        for path in (ROOT / "mlp_tape").rglob("*.py")
        if re.search(r"hydra\._|load_sweep_config =", path.read_text())
    ]
    assert used == ["hydra_internals.py"]


@pytest.mark.long
def test_a_sweep_runs_with_a_hydra_that_lacks_all_of_them(run_py: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import mlp_tape.cli.hydra_internals as internals\ninternals.find = lambda name: None\n"
    )
    path = f"{tmp_path}:{ROOT}"
    arguments = ["dataset=digits", "epochs=1", "lr=0.1,0.2"]
    done = run_py(tmp_path, "-m", *arguments, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each.parent.name for each in tmp_path.glob("multirun/*/*/*/weights.npz")} == {"0", "1"}
