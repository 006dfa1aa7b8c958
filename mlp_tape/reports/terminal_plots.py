"""Curves in characters, for a terminal; in plain ASCII where there are no colours."""

from collections.abc import Sequence

import uniplot

from mlp_tape.reports.style import Point

Curve = tuple[str, Sequence[Point]]


def curves(title: str, lines: Sequence[Curve], width: int, colour: bool) -> str:
    """Draws some curves over each other.

    Args:
        title: stands above.
        lines: of each its name, and steps and values; those without any are left out.
        width: of the whole, in characters.
        colour: whether the terminal shows colours and block characters.

    Returns:
        Lines, without the last one's end; nothing where there is nothing to be seen.
    """
    drawn = [(name, points) for name, points in lines if points]
    if not drawn:
        return ""
    values = [value for _, points in drawn for _, value in points]
    as_log = min(values) > 0 and max(values) > 30 * min(values)
    text: str = uniplot.plot_to_string(
        [[value for _, value in points] for _, points in drawn],
        xs=[[step for step, _ in points] for _, points in drawn],
        legend_labels=[name for name, _ in drawn],
        title=title,
        lines=True,
        width=max(20, width - 12),  # beside it stand a frame and numbers
        height=14,
        y_as_log=as_log,
        color=colour,
        character_set="block" if colour else "ascii",
    )
    return text.rstrip("\n")
