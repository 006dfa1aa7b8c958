"""How this program is installed and was started: where its configs are, and what a person types for it."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # of the repository, or the directory where packages are installed

VARIABLE = "MLP_TAPE_PROGRAM"  # an environment variable, for the processes that this one starts
RUN_PY, COMMAND, MODULE, API = "run.py", "mlp-tape", "module", "mlp_tape.train"
TYPED = {  # to train, and to run a tool
    RUN_PY: ("python run.py", "python -m mlp_tape"),
    COMMAND: ("mlp-tape", "mlp-tape"),
    MODULE: ("mlp-tape", "python -m mlp_tape"),
    API: ("mlp-tape", "mlp-tape"),
}


def is_checkout() -> bool:
    """Whether the package is in a clone of the repository, and not installed from a wheel."""
    return not (PACKAGE / "conf").is_dir()


def conf() -> Path:
    """Returns the directory of the configs: at the top of the repository, in the package of a wheel."""
    return (ROOT if is_checkout() else PACKAGE) / "conf"


def start_as(name: str) -> None:
    """Declares how the person started the program: RUN_PY, COMMAND or MODULE."""
    os.environ[VARIABLE] = RUN_PY if name == MODULE and is_checkout() else name


def name() -> str:
    """Returns how the program was started; API if it was not, but another program uses the package."""
    found = os.environ.get(VARIABLE, API)
    return found if found in TYPED else API


def train(started_as: str = "") -> str:
    """Returns what a person types before settings to train, such as `python run.py`.

    Args:
        started_as: how the program was started; if empty, as this one was.
    """
    return TYPED.get(started_as, TYPED[name()])[0]


def tool() -> str:
    """Returns what a person types before the name of a tool, such as `python -m mlp_tape`."""
    return TYPED[name()][1]


def install(extra: str) -> str:
    """Returns the command that installs what an extra of the package requires."""
    return f"pip install -e '.[{extra}]'" if is_checkout() else f"pip install 'mlp_tape[{extra}]'"
