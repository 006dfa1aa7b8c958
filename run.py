"""Trains a multilayer perceptron on MNIST as `conf/` says: `python run.py --help`."""

from pathlib import Path

from mlp_tape.cli import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent / "conf")
