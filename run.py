"""Entry point of training runs and sweeps: `python run.py --help`."""

from mlp_tape.system import exit, program, streams, timeline

if __name__ == "__main__":
    streams.prepare()
    exit.on_early_signals()  # before the imports, which take half a second
    program.start_as(program.RUN_PY)
    timeline.start()

    with timeline.phase("imports"):
        from mlp_tape.cli.main import main

    main()
