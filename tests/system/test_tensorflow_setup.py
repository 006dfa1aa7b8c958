"""What the import of TensorFlow imports."""

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import ROOT
from mlp_tape.system.tensorflow_setup import as_not_installed

PROGRAM = """
import sys
from mlp_tape.system import tensorflow_setup
tensorflow_setup.import_tensorflow()
imported = {name.partition(".")[0] for name in sys.modules}
assert "tensorflow" in imported and not imported & {*tensorflow_setup.UNUSED}, imported
import h5py, scipy.stats
try:
    import jax
except ZeroDivisionError:
    print("all can be imported afterwards")
"""


def test_tensorflow_is_imported_without_packages_that_are_not_used(tmp_path: Path) -> None:
    jax = tmp_path / "jax.py"  # in place of the package, which is not installed for the tests
    jax.write_text("1 / 0")
    program = f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}\n{PROGRAM}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert ended.stdout == "all can be imported afterwards\n", ended.stderr


def test_packages_are_hidden_from_one_thread_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hidden_here", "found_here"):
        (tmp_path / f"{name}.py").touch()
    importlib.invalidate_caches()
    with as_not_installed(["hidden_here"]):
        with pytest.raises(ModuleNotFoundError, match="hidden_here"):
            importlib.import_module("hidden_here")
        importlib.import_module("found_here")
        other = threading.Thread(target=importlib.import_module, args=["hidden_here"])
        other.start()
        other.join()
    assert "hidden_here" in sys.modules
