"""Entry points: the tools of `python -m mlp_tape`, and the command `mlp-tape`, which also trains."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # Python puts the current directory first, where a file may be a random.py
    sys.path.append(sys.path.pop(0))

from mlp_tape.system import exit, program, streams, timeline


def tools() -> None:
    """Runs a tool of `cli.tools`."""
    streams.prepare()
    exit.on_early_signals()  # before the imports, which take half a second
    program.start_as(program.MODULE)

    from mlp_tape.cli import tools

    exit.leave(tools.main())


def command() -> None:
    """Runs the tool that the first argument names, a word without `=`; else trains, as `run.py` does."""
    streams.prepare()
    exit.on_early_signals()
    program.start_as(program.COMMAND)

    from mlp_tape.cli import tools

    if sys.argv[1:2] and sys.argv[1] in tools.COMMANDS:
        exit.leave(tools.main())

    timeline.start()
    with timeline.phase("imports"):
        from mlp_tape.cli.main import main

    main()


if __name__ == "__main__":
    tools()
