"""Entry point of `python -m mlp_tape`; the commands are in `cli.tools`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:  # Python puts the current directory first, where a file may be a random.py
        sys.path.append(sys.path.pop(0))

    from mlp_tape.system import exit, streams

    streams.prepare()
    exit.on_early_signals()  # before the imports, which take half a second

    from mlp_tape.cli import tools

    exit.leave(tools.main())
