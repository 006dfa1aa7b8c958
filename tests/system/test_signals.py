"""Signals during computations of XLA."""

import signal
import subprocess
import sys

import pytest

from conftest import LIMIT, ROOT

PROGRAM = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from mlp_tape.system import signals, tensorflow_setup
tensorflow_setup.import_tensorflow()
from mlp_tape.data import datasets
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import network
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import loop
from mlp_tape.training.batches import Batches
from mlp_tape.training.loop import LoopConfig
from mlp_tape.training.state import initial

def send():
    while True:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.0005)

digits, received = datasets.load("digits"), []
config = step_config("relu", "mse", "sgd", **digits.scale.as_json())

def trained(epochs):
    params = network.init_params([64, 256, 128, 10], 0.1, 0)
    batches = Batches(digits.x_train, digits.y_train, 128)
    state = initial(params, config.optimizer)
    list(loop.train(state, batches, config, LearningRate(0.1), LoopConfig(epochs)))
    return {name: param.numpy() for name, param in params.items()}

undisturbed = trained(200)
signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
with signals.on_signals():
    threading.Thread(target=send, daemon=True).start()
    rounds = 0
    while rounds < 5 or len(received) <= 100:
        rounds += 1
        disturbed = trained(200)
        assert all((undisturbed[name] == disturbed[name]).all() for name in disturbed)
print(len(received), flush=True)
os._exit(0)
"""


@pytest.mark.long
@pytest.mark.concurrency
def test_signals_do_not_corrupt_computations_of_xla() -> None:
    """Without an alternate stack, a handler overwrites data that XLA stores below the stack pointer."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode != -signal.SIGABRT, done.stderr
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
