"""The common style of all plots: colours and the format of the files.

Most plots set their margins explicitly: matplotlib's layout engines take as long as drawing.
"""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Point = tuple[int, float]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # colour-blind-safe palette of Okabe and Ito
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)


def warm_up() -> None:
    """Draws a small figure into memory, since loading fonts for the first figure takes time."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2])
    axes.set_yscale("log")
    axes.pcolormesh([[1.0]])
    figure.savefig(io.BytesIO(), dpi=100)


def title(axes: Axes, text: str, above: float = 6) -> None:
    """Sets the title of axes, at a distance in points; finding a place for it would take 20 ms."""
    axes.set_title(text, fontsize="medium", y=1.0, pad=above)


def legend(figure: Figure, columns: int) -> None:
    """Adds a legend of all axes above them, with equal entries once."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    entries = {label: handle for each in pairs for handle, label in each}
    figure.legend(
        entries.values(),
        entries,
        loc="outside upper left",
        ncols=columns,
        fontsize="small",
        frameon=False,
    )


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG file at 100 dpi, compressed for speed rather than size."""
    figure.savefig(path, dpi=100, pil_kwargs={"compress_level": 1})
