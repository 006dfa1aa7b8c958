"""Signals while XLA computes."""

import signal
import subprocess
import sys

import pytest

from conftest import LIMIT, ROOT

PROGRAM = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from mlp_tape import quiet, stop
quiet.import_tensorflow()
from mlp_tape import data, model, step, train

def send():
    while True:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.0005)

digits, received = data.load("digits"), []
recipe = step.recipe("relu", "mse", "sgd", digits.scale)

def trained(epochs):
    params = model.init_params([64, 256, 128, 10], 0.1, 0)
    list(train.train(params, digits.x_train, digits.y_train, recipe, lr=0.1, batch_size=128, epochs=epochs))
    return {name: param.numpy() for name, param in params.items()}

undisturbed = trained(200)
signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
with stop.on_signals():
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
def test_a_signal_while_xla_computes_damages_nothing() -> None:
    """Without a stack of its own, the handler of a signal writes over what XLA keeps below the pointer."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode != -signal.SIGABRT, done.stderr
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
