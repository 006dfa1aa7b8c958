"""The figures that a test draws."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlp_tape.reports import style


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn; nothing is written."""
    figures: list[Figure] = []

    def draw(figure: Figure, _: Path) -> None:
        FigureCanvasAgg(figure).draw()
        figures.append(figure)

    monkeypatch.setattr(style, "save", draw)
    return figures
