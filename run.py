"""Entry point of training runs and sweeps: `python run.py --help`."""

from pathlib import Path

from mlp_tape.system import exit, streams

if __name__ == "__main__":
    streams.prepare()
    exit.on_early_signals()  # before the imports, which take half a second

    from mlp_tape.cli.main import main

    main(Path(__file__).resolve().parent / "conf")
