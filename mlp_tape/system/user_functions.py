"""Lookup of functions by name: the program's own, and the user's as `module.function`.

An error of a user's function is reported in two lines that name its file and line.
"""

import contextlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mlp_tape.errors import ConfigError, MlpTapeError, UserFunctionError
from mlp_tape.system import program, spelling, tensorflow_setup

Function = Callable[..., Any]


def find(name: str, known: Mapping[str, Function]) -> Function:
    """Returns the function with a given name.

    Args:
        name: a key of `known`, or `module.function`, imported from the current directory or Python's path.
        known: the program's functions by name.

    Raises:
        ConfigError: the function cannot be imported.
    """
    if name in known:
        return known[name]
    tensorflow_setup.import_tensorflow()  # if the module imported it, it would print messages
    module, _, function = name.rpartition(".")
    imported = _imported(name, module, known)
    found: Function | None = getattr(imported, function, None)
    if not callable(found):
        file = _shown(Path(imported.__file__)) if imported.__file__ else f"the module {module}"
        problem = f"{file} has no function {function}" if found is None else f"{function} is not a function"
        near = spelling.closest(function, _functions(imported))
        define = f"type {module}.{near[0]}" if near else f"define {function} in {file}"
        raise ConfigError(f"{name} cannot be imported: {problem}", define + _or_one_of(known))
    return found


def called(name: str, function: Function, *arguments: Any) -> Any:
    """Returns the result of a user's function, as `blamed` does if it fails."""
    with blamed(name):
        return function(*arguments)


@contextlib.contextmanager
def blamed(*names: str) -> Iterator[None]:
    """Raises UserFunctionError for an error in the block, if a user's function has caused it.

    Args:
        names: names of the functions that the block calls. Those of the program, which are not
            `module.function`, are ignored; without another one, only an error that was raised in a user's
            file is converted.
    """
    try:
        yield
    except MlpTapeError:
        raise
    except Exception as error:
        raise failure(error, *names) or error from error


def failure(error: BaseException, *names: str) -> UserFunctionError | None:
    """Returns the error to report for one that a user's function has caused; None if none has.

    Args:
        error: an exception.
        names: names of the functions that were called, as in `blamed`.
    """
    own = [name for name in names if "." in name]
    where = _raised_at(error) or " or ".join(filter(None, map(defined_at, own)))
    if not where:
        return None
    which = f"{' or '.join(own)} failed" if own else "a function of your own failed"
    return UserFunctionError(f"{which}: {where}: {_described(error)}", "correct the function")


def defined_at(name: str) -> str:
    """Returns file and line in which a user's function is defined; empty if they are not known."""
    module, _, function = name.rpartition(".")
    found = inspect.unwrap(getattr(sys.modules.get(module), function, None) or defined_at)
    code = getattr(found, "__code__", None)
    if code is None or not _is_own(code.co_filename):
        return ""
    return f"{_shown(Path(code.co_filename))}, line {code.co_firstlineno}"


def _imported(name: str, module: str, known: Mapping[str, Function]) -> ModuleType:
    """Imports a user's module; that of the current directory has precedence over installed ones."""
    here = str(Path.cwd())
    if here not in sys.path:  # behind the standard library, of which a file here may have a name
        installed = [i for i, place in enumerate(sys.path) if Path(place).name.endswith("-packages")]
        sys.path.insert(installed[0] if installed else len(sys.path), here)
    importlib.invalidate_caches()
    path = Path(here, *module.split("."))
    own = next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)
    top = module.partition(".")[0]
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and own is None
            and f"{module}.".startswith(f"{error.name}.")
        ):
            function = name.rpartition(".")[2]
            raise ConfigError(
                f"{name} cannot be imported: {error}",
                f"define {function} in {module.replace('.', '/')}.py in the current directory"
                + _or_one_of(known),
            ) from error
        if own is None or top not in sys.stdlib_module_names:
            raise _not_importable(name, own, error) from error
    else:
        if own is None or (imported.__file__ and Path(imported.__file__).resolve() == own.resolve()):
            return imported
    raise ConfigError(
        f"{name} cannot be imported: {_shown(own)} has the name of another module of Python or of a library",
        f"rename it, for example to my_{own.name}, and type my_{name}",
    )


def _not_importable(name: str, own: Path | None, error: BaseException) -> ConfigError:
    """Returns the error for a module that fails while it is imported."""
    where = _raised_at(error) or (_shown(own) if own else "")
    hint = f"correct {where.partition(',')[0]}" if where else "correct the module"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"pip install {error.name.partition('.')[0]}, or {hint}"
    return ConfigError(f"{name} cannot be imported: {where and f'{where}: '}{_described(error)}", hint)


def _described(error: BaseException) -> str:
    """Returns kind and message of an error in a line; TensorFlow's messages have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    if isinstance(error, SyntaxError):
        lines = [error.msg]
    return f"{type(error).__name__}: {lines[0]}"


def _raised_at(error: BaseException) -> str:
    """Returns the last line of a user's file that an error passed through; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename):
        return f"{_shown(Path(error.filename))}, line {error.lineno}"
    shown = re.findall(r'File "([^"]+)", line (\d+)', str(error))  # of TensorFlow, such as in a py_function
    for filename, line in reversed(shown):
        if _is_own(filename):
            return f"{_shown(Path(filename))}, line {line}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename):
            return f"{_shown(Path(frame.filename))}, line {frame.lineno}"
    before = error.__cause__ or error.__context__
    return _raised_at(before) if before else ""


def _is_own(filename: str) -> bool:
    """Returns whether a file is neither of this program, nor of Python or an installed package."""
    path = Path(filename)
    if not path.is_file() or "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    others = [Path(__file__).parent.parent, program.ROOT / "run.py", Path(inspect.__file__).parent]
    return not any(path.resolve().is_relative_to(other.resolve()) for other in others)


def _shown(path: Path) -> str:
    """Returns a path as the user would type it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _functions(module: ModuleType) -> list[str]:
    """Returns the names of the functions that a module defines."""
    return [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]


def _or_one_of(known: Mapping[str, Function]) -> str:
    return f", or type one of: {', '.join(known)}" if known else ""
