"""PyTorch: eager, or with a compiled training step.

Source: PyTorch's tutorials "Optimizing Model Parameters" and "Introduction to torch.compile". Batches are
slices of one tensor; the DataLoader of the first tutorial takes several times as long.
"""

from typing import Any

import numpy as np

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("PyTorch, eager", "PyTorch, torch.compile")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    import torch

    images = torch.from_numpy(x.reshape(-1, 784).astype(np.float32) / 255)
    labels = torch.from_numpy(np.eye(10, dtype=np.float32)[y])
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    with torch.no_grad():
        for param, array in zip(model.parameters(), start, strict=True):
            param.copy_(torch.from_numpy(array.T if array.ndim == 2 else array))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=LR), torch.nn.MSELoss()

    def step(images: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    if "compile" in variant:
        step = torch.compile(step)

    def epoch() -> float:
        loss = torch.zeros(())
        for i in range(0, len(images), BATCH):
            loss = step(images[i : i + BATCH], labels[i : i + BATCH])
        return float(loss.item())

    return epoch, lambda: [param.detach().numpy().T.copy() for param in model.parameters()]
