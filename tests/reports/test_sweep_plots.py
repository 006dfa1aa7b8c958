"""The plots of sweeps are readable: labels neither overlap nor leave the axes without room."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlp_tape.reports import curve_plots, sweep_plots


def check_labels(axes: Axes) -> None:
    """Checks that the labels of the ticks do not overlap; of slanted ones, that their ends are apart."""
    for labels, side in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        if labels and labels[0].get_rotation() == 0:
            assert not any(one.overlaps(other) for one, other in pairwise(boxes)), labels
        else:
            assert side == "x"
            assert all(other.x1 - one.x1 > 12 for one, other in pairwise(boxes)), labels


SWEPT: list[dict[str, Sequence[Any]]] = [
    {"lr": [0.001, 0.01, 0.1, 0.1 + 0.2], "batch_size": [32, 64, 128, 256]},
    {"lr": [0.1, 0.11, 0.12, 1.0], "model.hidden_sizes": [[64], [512, 256, 128], [512, 256, 128, 64], []]},
    {"model.function": ["my_package.of.many.functions.first", "my_package.of.many.functions.second"] * 2},
    {key: [1, 2, 3, 4] for key in "abcdef"},
]


@pytest.mark.parametrize("swept", SWEPT)
def test_labels_of_the_values_do_not_overlap(drawn: list[Figure], swept: Mapping[str, Sequence[Any]]) -> None:
    assert sweep_plots.is_readable(swept)
    sweep_plots.accuracies(Path(), swept, [0.5, 0.6, 0.7, 0.8], "validation accuracy")
    (figure,) = drawn
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in panels] == list(swept)
    assert {axes.get_ylabel() for axes in panels} == {"validation accuracy (%)"}
    assert figure.get_size_inches().max() <= 12
    for axes in panels:
        check_labels(axes)
    if len(swept) == 2:
        assert "0.1" in [label.get_text() for label in panels[0].get_xticklabels()]


def test_setting_with_many_values_that_are_not_numbers_is_not_readable() -> None:
    assert not sweep_plots.is_readable({"path": [f"data_{i}.npz" for i in range(11)]})
    assert sweep_plots.is_readable({"lr": [i / 7 for i in range(100)]})


@pytest.mark.parametrize("n", [2, 7, 40])
def test_best_jobs_are_shown_in_order_with_their_names(drawn: list[Figure], n: int) -> None:
    jobs = [(f"job {i}  optimizer={'x' * 200} seed={i}", 0.9 - i / 100) for i in range(n)]
    sweep_plots.ranking(Path(), jobs, "test accuracy")
    (axes,) = drawn[0].axes
    check_labels(axes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == min(n, 30)
    assert all(label.endswith(f"seed={i}") for i, label in enumerate(labels))
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the best job is at the top"
    assert axes.get_title() == ("best 30 of 40 finished jobs" if n == 40 else "")
    assert axes.get_window_extent().width > 0.3 * drawn[0].get_window_extent().width


@pytest.mark.parametrize("name", ["lr=0.1", "optimizer=momentum optimizer.momentum=0.95 " * 4])
def test_legend_of_the_curves_leaves_room_for_them(drawn: list[Figure], name: str) -> None:
    runs = [(f"job {i}  {name}", [(0, 1.0), (9, 0.1)], [(9, 0.9)], 10) for i in range(12)]
    curve_plots.overlay(Path(), runs, "validation accuracy")
    (figure,) = drawn
    assert figure.axes[1].get_ylabel() == "validation accuracy (%)"
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.6 * figure.get_window_extent().width
        assert axes.get_window_extent().height > 150


def test_job_that_diverged_does_not_move_the_line(drawn: list[Figure]) -> None:
    sweep_plots.accuracies(Path(), {"lr": [1] * 3 + [2] * 3}, [0.8, 0.9, 0.1] * 2, "test accuracy")
    (line,) = (line for line in drawn[0].axes[0].lines if line.get_label() == "median")
    assert list(line.get_ydata()) == [80, 80]


def test_seeds_have_one_median_and_other_numbers_a_line(drawn: list[Figure]) -> None:
    swept = {"seed": [0, 1, 2, 3], "lr": [0.1, 0.1, 0.2, 0.2], "l2": [1, 2, 3, 4]}
    sweep_plots.accuracies(Path(), swept, [0.5, 0.6, 0.7, 0.8], "test accuracy")
    lines = [[line for line in axes.lines if line.get_marker() != "*"] for axes in drawn[0].axes]
    heights = [[list(line.get_ydata()) for line in each] for each in lines]
    assert heights == [[[65.0, 65.0]], [[55.0, 75.0]], [[50.0, 60.0, 70.0, 80.0]]]
    assert [line.get_label().startswith("_") for (line,) in lines] == [False, False, True]
    assert "median" in [text.get_text() for text in drawn[0].legends[0].get_texts()]
