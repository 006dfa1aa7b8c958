"""What all pictures have in common: colours that everybody can tell apart, sizes, and how they are written.

Margins are given, not found: to find the best takes matplotlib as long as to draw.
"""

import io
from pathlib import Path

from matplotlib.figure import Figure

Point = tuple[int, float]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's colours, safe for the colour-blind
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", GREY)


def warm_up() -> None:
    """Draws something small to nowhere: what has to be found and read for the first picture takes a while."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2])
    axes.set_yscale("log")
    axes.pcolormesh([[1.0]])
    figure.savefig(io.BytesIO(), dpi=100)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG of 100 dots an inch, quickly rather than small."""
    figure.savefig(path, dpi=100, pil_kwargs={"compress_level": 1})
