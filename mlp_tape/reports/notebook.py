"""A notebook that shows a step of a run, for whoever wants to compute with its tensors."""

import json
from pathlib import Path
from typing import Any

from mlp_tape.system import atomic_files

CELLS = (
    "import mlp_tape\n\ntensors = mlp_tape.replay({run!r}, {step})",
    'for name, values in tensors.items():\n    print(f"{{name:<26}} {{values.dtype!s:<8}} {{values.shape}}")',
    "import matplotlib.pyplot as plt\n\n"
    "figure, axes = plt.subplots(2, 8, figsize=(12, 3))\n"
    'for image, label, each in zip(tensors["images"], tensors["labels"], axes.flat):\n'
    '    each.imshow(image, cmap="gray")\n'
    "    each.set_title(label)\n"
    "    each.axis(False)",
    'plt.hist(tensors["gradient of w1"].ravel(), bins=100, log=True)\nplt.xlabel("gradient of w1");',
)


def write(path: Path, run: str, step: int) -> None:
    """Writes a notebook in the format of Jupyter 4.5.

    Args:
        path: path of the file.
        run: directory or MLflow run id.
        step: global number of the step.
    """
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# Step {step:,} of {run}"}
    code: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": text.format(run=run, step=step),
        }
        for i, text in enumerate(CELLS)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    content = {"cells": [title, *code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    atomic_files.write(path, json.dumps(content, indent=1).encode())
