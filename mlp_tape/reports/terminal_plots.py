"""Plots for a terminal, in block characters, or in ASCII without colour support."""

from collections.abc import Sequence

import uniplot

from mlp_tape.reports.style import Point

Curve = tuple[str, Sequence[Point]]

FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")  # for a terminal that has only ASCII


def curves(title: str, lines: Sequence[Curve], width: int, colour: bool) -> str:
    """Plots several curves in the same axes; the scale is logarithmic if the values span a wide range.

    Args:
        title: title above the plot.
        lines: for each curve, its name, and steps and values; curves without points are omitted.
        width: total width in characters.
        colour: whether the terminal supports colours and block characters.

    Returns:
        The lines of the plot, without a final newline; empty if there are no points.
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
        width=max(20, width - 12),  # leaves space for frame and tick labels
        height=14,
        y_as_log=as_log,
        color=colour,
        character_set="block" if colour else "ascii",
    )
    return text.rstrip("\n")
