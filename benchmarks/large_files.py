"""Reads large files of images with NumPy and with mlp_tape: `python -m benchmarks.large_files DIRECTORY`.

Each file is read in a process of its own, which then sums all pixels. Its time and peak memory are measured:
`own` memory cannot be dropped; `mapped` memory is in the system's cache of files, which is dropped when
others need it. `beyond` reads as if the file were larger than half of the memory. Then a network is trained
on the `.npy` file for an epoch in random order: with the array in memory, and a few batches at a time.
"""

import argparse
import gzip
import re
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT

ROW = 28 * 28
BLOCK = 2**16  # images that are written at once
WAYS = ("numpy", "mlp_tape", "beyond")
TRAINING = ("trained in memory", "trained streamed")


def write(directory: Path, gigabytes: float) -> None:
    """Writes the same images as `.npy`, `.npz`, IDX and compressed IDX."""
    n = int(gigabytes * 1e9) // ROW
    x = np.lib.format.open_memmap(directory / "x_train.npy", "w+", np.uint8, (n, 28, 28))
    rng = np.random.default_rng(0)
    for start in range(0, n, BLOCK):
        rows = x[start : start + BLOCK]
        rows[...] = rng.integers(0, 256, rows.shape, np.uint8) * (rng.random(rows.shape, np.float32) < 0.2)
    y = (np.arange(n) % 10).astype(np.uint8)
    np.save(directory / "y_train.npy", y)
    np.savez(directory / "data.npz", x_train=x, y_train=y)
    header = {"images-idx3": struct.pack(">HBBIII", 0, 8, 3, n, 28, 28)}
    header["labels-idx1"] = struct.pack(">HBBI", 0, 8, 1, n)
    for (name, start), array in zip(header.items(), (x, y), strict=True):
        for place in ("idx", "gz"):
            (directory / place).mkdir(exist_ok=True)
            path = directory / place / f"train-{name}-ubyte"
            with path.open("wb") if place == "idx" else gzip.open(f"{path}.gz", "wb", 1) as file:
                file.write(start)
                for row in range(0, n, BLOCK):
                    file.write(array[row : row + BLOCK].tobytes())


def paths(directory: Path) -> dict[str, Path]:
    """Returns the file to be read of each kind."""
    images = "train-images-idx3-ubyte"
    return {
        ".npy": directory / "x_train.npy",
        ".npz": directory / "data.npz",
        "IDX": directory / "idx" / images,
        "IDX with gzip": directory / "gz" / f"{images}.gz",
    }


def load(path: Path, way: str) -> "np.ndarray":
    """Reads images with NumPy or with mlp_tape."""
    if way == "numpy":
        if path.suffix == ".npz":
            with np.load(path) as archive:
                return archive["x_train"]
        if path.suffix == ".npy":
            return np.load(path)
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        flat = np.frombuffer(raw, np.uint8, offset=16)
        return flat.reshape(-1, 28, 28).copy()  # writable, as TensorFlow needs it
    from mlp_tape.data import allocation
    from mlp_tape.data.contents import Reading
    from mlp_tape.data.readers import any_format

    if way == "beyond":
        allocation.memory = lambda: 2**30
    return any_format.read(path, Reading()).parts["train"][0]


def trained(path: Path, way: str) -> float:
    """Trains a network for an epoch, and returns the sum of all losses."""
    from mlp_tape.runs.trainer import step_config
    from mlp_tape.tensors import network
    from mlp_tape.tensors.schedules import LearningRate
    from mlp_tape.training import batches, loop
    from mlp_tape.training.state import initial

    if way == TRAINING[0]:
        batches.LARGE = 2**62
    x = load(path, "numpy" if way == TRAINING[0] else "mlp_tape")
    y = np.load(path.with_name("y_train.npy")).astype(np.int32)
    config = step_config("relu", "mse", "sgd", 255.0)
    state = initial(network.init_params([ROW, 256, 128, 10], 0.1, seed=0), config.optimizer)
    limits = loop.LoopConfig(epochs=1, log_every=100)
    blocks = loop.train(state, batches.Batches(x, y, 512, shuffle_seed=0), config, LearningRate(0.1), limits)
    return float(sum(block.losses.astype(float).sum() for block in blocks))


def worker(path: Path, way: str) -> None:
    """Prints seconds and the peak of own and mapped memory in GB."""
    import threading

    peak = {"RssAnon": 0, "RssFile": 0, "RssShmem": 0}
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            for key in peak:
                peak[key] = max(peak[key], int(re.search(rf"{key}:\s+(\d+)", status)[1]))  # type: ignore[index]

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    if way in TRAINING:
        total = trained(path, way)
    else:
        x = load(path, way)
        total = sum(int(x[start : start + BLOCK].sum()) for start in range(0, len(x), BLOCK))
    seconds = time.perf_counter() - began
    is_done.set()
    thread.join()
    print(f"{seconds:.1f} {peak['RssAnon'] / 1e6:.2f} {peak['RssFile'] / 1e6:.2f} {total}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_files", description=__doc__)
    parser.add_argument("directory", type=Path, help="existing directory with room for five times the size")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, metavar=("FILE", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(Path(given.worker[0]), given.worker[1])
        return
    if not (given.directory / "gz").exists():  # else those of an earlier call are used
        write(given.directory, given.gigabytes)
    print("| file | read by | seconds | own memory, GB | mapped, GB |\n|---|---|---|---|---|", flush=True)
    files = paths(given.directory)
    for kind, path, ways in [*((*each, WAYS) for each in files.items()), (".npy", files[".npy"], TRAINING)]:
        path.read_bytes()  # into the cache of files
        found: dict[str, list[list[str]]] = {way: [] for way in ways}
        for _round in range(given.rounds):
            for way in ways:
                command = [sys.executable, "-m", "benchmarks.large_files", ".", "--worker", str(path), way]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                found[way].append(done.stdout.split())
        assert len({row[-1] for rows in found.values() for row in rows}) == 1, found
        for way, rows in found.items():
            seconds, own, mapped = (sorted(float(row[n]) for row in rows) for n in range(3))
            middle = statistics.median(seconds)
            times = f"{middle:.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"
            print(f"| {kind} | {way} | {times} | {own[-1]} | {mapped[-1]} |", flush=True)


if __name__ == "__main__":
    main()
