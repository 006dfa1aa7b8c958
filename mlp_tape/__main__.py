"""Entry point of `python -m mlp_tape`; the commands are in `cli.tools`."""

from mlp_tape.system import exit

if __name__ == "__main__":
    exit.on_early_signals()  # before the imports, which take half a second

    from mlp_tape.cli import tools

    exit.leave(tools.main())
