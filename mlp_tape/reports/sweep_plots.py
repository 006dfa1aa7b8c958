"""The plot of a sweep: accuracy against each swept setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlp_tape.reports import style
from mlp_tape.reports.style import BLUE, ORANGE


def accuracies(path: Path, swept: Mapping[str, Sequence[Any]], accuracy: Sequence[float]) -> None:
    """Plots the test accuracy of the jobs against each swept setting.

    Args:
        path: path of the PNG file.
        swept: for each swept setting, its value in each job.
        accuracy: test accuracy of each job, 0 to 1.
    """
    panels = list(swept.items()) or [("job", list(range(len(accuracy))))]
    figure = Figure(figsize=(max(5.0, 4.0 * len(panels)), 4), layout="constrained")
    percent = 100 * np.asarray(accuracy)
    for axes, (key, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numeric:
            x = np.asarray(values, float)
            if x.min() > 0 and x.max() >= 30 * x.min():
                axes.set_xscale("log")
            elif len(set(values)) <= 8:
                axes.set_xticks(sorted(set(values)))
        else:
            names = list(dict.fromkeys(str(value) for value in values))
            x = np.asarray([names.index(str(value)) for value in values], float)
            axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
            axes.margins(x=0.2)
        axes.plot(x, percent, "o", color=BLUE, alpha=0.7)
        each = np.unique(x)
        means = [percent[x == value].mean() for value in each]
        if len(each) < len(x) or numeric:
            axes.plot(each, means, "-", color=ORANGE, linewidth=1, label="mean", zorder=0)
            axes.legend()
        axes.set(xlabel=key, ylabel="test accuracy (%)")
        axes.grid(alpha=0.3)
    style.save(figure, path)
