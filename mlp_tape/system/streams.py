"""Standard streams, arguments and paths of a process, whatever terminal and locale it was started with."""

import io
import os
import sys


def prepare() -> None:
    """Makes standard streams accept any text, and opens those that are closed, as by `>&-`, on nothing.

    A closed one has the number of the next file that the process opens, such as a database, which would then
    receive what is printed. In a locale without an encoding for other characters than ASCII, the process
    starts again in Python's UTF-8 mode, as Python itself does unless that is disabled: names of files could
    not be encoded.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.getfilesystemencoding() == "ascii" and sys.argv[0] != "-c":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
