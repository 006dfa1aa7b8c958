"""Errors of damaged files, of whatever library."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mlp_tape.errors import DataError


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turns what a library raises about a file into an error that names the file.

    Args:
        path: file that is read.

    Raises:
        DataError: the block has raised an exception.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is", "use a smaller file") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "correct its permissions") from error
    except Exception as error:  # libraries do not document what damaged data raise
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{path} is damaged: {first}", "download it again, or save it again") from error
