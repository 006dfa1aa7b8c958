"""The overhead of the jobs of a sweep over bare training: `python benchmarks/sweeps.py FILE.npz [ROUNDS]`.

Measured alternately: a sweep of one job; a sweep over 32 learning rates with one epoch each; the same with
two workers; and 32 epochs of bare training, `train` and nothing else in a process that has already compiled.
Half of these epochs are trained before the sweep and half after it, as the speed of the machine varies. The
cost of a job is a 31st of the additional time of 31 more jobs, which excludes the start-up.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = 32
RATES = ",".join(f"{0.001 * i:g}" for i in range(1, JOBS + 1))

BARE = """
import sys, time
from mlp_tape.system import tensorflow_setup; tensorflow_setup.import_tensorflow()
from mlp_tape.data import datasets
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import network
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import loop
from mlp_tape.training.batches import Batches
from mlp_tape.training.loop import LoopConfig
from mlp_tape.training.state import initial
d, config = datasets.load("mnist", sys.argv[1]), step_config("relu", "mse", "sgd", 255.0)
batches = Batches(d.x_train, d.y_train, 128)
def epoch(lr):
    state = initial(network.init_params([784, 256, 128, 10], 0.1, 0), config.optimizer)
    for block in loop.train(state, batches, config, LearningRate(lr), LoopConfig(epochs=1)): pass
epoch(0.001)
began = time.perf_counter()
for i in range(int(sys.argv[2])): epoch(0.001 * (i + 1))
print(time.perf_counter() - began)
"""


def sweep(path: str, rates: str, *more: str) -> float:
    """Returns the seconds of a whole sweep, in a new directory that already has a database."""
    with tempfile.TemporaryDirectory() as name:
        program = [sys.executable, str(ROOT / "run.py")]
        subprocess.run([*program, "dataset=digits", "epochs=1"], cwd=name, check=True, capture_output=True)
        arguments = ["-m", f"dataset.path={path}", "epochs=1", f"lr={rates}", *more]
        began = time.perf_counter()
        done = subprocess.run([*program, *arguments], cwd=name, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        return seconds


def bare(path: str) -> float:
    """Returns the seconds of bare training, of half as many epochs as there are jobs."""
    program = [sys.executable, "-c", BARE, path, str(JOBS // 2)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(path: str, rounds: int) -> None:
    single, serial, parallel, training = [], [], [], []
    for _ in range(rounds):
        single.append(sweep(path, "0.001"))
        before = bare(path)
        serial.append(sweep(path, RATES))
        training.append(before + bare(path))
        parallel.append(sweep(path, RATES, "hydra/launcher=joblib"))
        print(
            f"1 job {single[-1]:.1f} s, {JOBS} jobs {serial[-1]:.1f} s, with joblib {parallel[-1]:.1f} s, "
            f"{JOBS} epochs of bare training {training[-1]:.1f} s",
            flush=True,
        )
    job = [(b - a) / (JOBS - 1) for a, b in zip(single, serial, strict=True)]
    epoch = [seconds / JOBS for seconds in training]
    print(
        f"a job {statistics.median(job):.3f} s, an epoch of bare training {statistics.median(epoch):.3f} s, "
        f"ratio {statistics.median(job) / statistics.median(epoch):.3f} "
        f"({', '.join(f'{a / b:.3f}' for a, b in zip(job, epoch, strict=True))}); joblib against without "
        f"{statistics.median(parallel) / statistics.median(serial):.3f}"
    )


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
