"""The plots of a search can be read: what matters is marked and in view, and labels do not overlap."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from conftest import sample
from mlp_tape.reports import curve_plots, search_plots, sweep_plots
from mlp_tape.reports.swept_jobs import Job, Metric, averaged

ACCURACY, LOSS = Metric("validation accuracy"), Metric("validation loss", maximize=False)
FAILED = Job(1, {"lr": 0.2}, None, "failed")
SIZES = ([64], [128], [256, 128], [512, 256, 128])
OPTIMIZERS = ("sgd", "momentum", "nesterov", "rmsprop", "adam")


def searched(n: int, metric: Metric = ACCURACY) -> list[Job]:
    """Returns jobs as a search with pruning leaves them: some pruned, few failed, some far worse."""
    rng, jobs = np.random.default_rng(0), []
    for i in range(n):
        settings = {
            "lr": float(10 ** rng.uniform(-4, 0)),
            "optimizer": OPTIMIZERS[rng.integers(5)],
            "model.hidden_sizes": SIZES[rng.integers(4)],
            "batch_size": int(2 ** rng.integers(4, 9)),
            "augmentation.rotation_degrees": float(rng.uniform(0, 20)),
            "model.init_stddev": float(10 ** rng.uniform(-3, 0)),
            "regularization.l2": [0, 1e-5, 1e-4, 1e-3][rng.integers(4)],
            "early_stopping.patience": [None, 5, 10][rng.integers(3)],
            "optimizer.weight_decay_of_the_hidden_layers": float(rng.uniform(0, 0.1)),
        }
        quality = 0.1 if i % 9 == 4 else 0.97 + 0.01 * rng.random()
        epochs = 2 if i % 3 == 2 else 10
        values = [quality - (quality - 0.1) * math.exp(-epoch) for epoch in range(1, epochs + 1)]
        curve = [(430 * e, v if metric.maximize else 1.05 - v) for e, v in enumerate(values, 1)]
        if i % 13 == 11:
            jobs.append(Job(i, settings, None, "failed"))
        else:
            jobs.append(Job(i, settings, curve[-1][1], "pruned" if epochs == 2 else "finished", curve))
    return jobs


def grid(accuracies: Sequence[float]) -> list[Job]:
    return [Job(i, {"lr": 0.1 * (i + 1)}, value, curve=[(9, value)]) for i, value in enumerate(accuracies)]


SWEEPS: dict[str, tuple[list[Job], Metric]] = {
    "5 jobs": (grid([0.9, 0.95, 0.96, 0.97, 0.1]), ACCURACY),
    "40 jobs": (searched(40), ACCURACY),
    "400 jobs": (searched(400), ACCURACY),
    "loss": (searched(40, LOSS), LOSS),
    "equal": (grid([0.9] * 8), ACCURACY),
    "one job": (grid([0.9]), ACCURACY),
    "only pruned": (
        [Job(0, {"lr": 0.1}, 0.3, "pruned", [(9, 0.3)]), Job(1, {"lr": 0.2}, None, "failed")],
        ACCURACY,
    ),
    "only failed": ([Job(0, {"lr": 0.1}, None, "failed")], ACCURACY),
}


def texts_of(figure: Figure) -> list[str]:
    """Returns the entries of the legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def tick_labels(axis: Axis) -> list[Text]:
    """Returns the labels of the ticks within the limits of an axis."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_text() and label.get_visible()]


def check_texts(figure: Figure) -> None:
    """Checks that no text is cut by the edge of the figure, and that upright labels do not overlap."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in [axes for axes in figure.axes if axes.axison]:
        groups = [tick_labels(axes.xaxis), tick_labels(axes.yaxis), list(axes.texts)]
        for group in groups:
            upright = [text for text in group if not text.get_rotation()]
            for one, other in itertools.combinations(upright, 2):
                assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)
        texts += [axes.xaxis.label, axes.yaxis.label, *itertools.chain(*groups)]
    for text in filter(Text.get_text, texts):
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text


def share_in_view(axes: Axes, values: Sequence[float]) -> float:
    low, high = sorted(axes.get_ylim())
    return float(np.mean([low <= value <= high for value in values]))


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("plot", ["history", "slices", "searched slices", "parallel coordinates", "curves"])
def test_texts_are_neither_cut_nor_overlapping(drawn: list[Figure], name: str, plot: str) -> None:
    jobs, metric = SWEEPS[name]
    if plot == "history":
        search_plots.history(Path(), jobs, metric)
    elif plot == "curves":
        curve_plots.curves(Path(), jobs, metric)
    elif plot == "parallel coordinates":
        search_plots.parallel_coordinates(Path(), jobs, metric)
    else:
        sweep_plots.slices(Path(), jobs, metric, searched=plot != "slices")
    (figure,) = drawn
    check_texts(figure)
    best = metric.ranked(jobs)[:1]
    assert [text for text in texts_of(figure) if text.startswith("best:")] == list(
        map(metric.about_best, best)
    )
    assert figure.get_size_inches().max() <= 18


def test_history_shows_the_best_so_far_and_is_not_flattened_by_jobs_that_are_far_worse(
    drawn: list[Figure],
) -> None:
    values = [0.972, 0.1, 0.975, 0.971, 0.11, 0.979, 0.974, 0.970]
    jobs = [
        *grid(values),
        Job(8, {}, 0.976, "pruned"),
        Job(9, {}, None, "failed"),
        Job(10, {}, 0.3, "pruned"),
    ]
    search_plots.history(Path(), jobs, ACCURACY)
    (axes,) = drawn[0].axes
    low, high = axes.get_ylim()
    assert 96.8 < low < 97.0
    assert 97.9 < high < 98.1
    lines = {str(line.get_label()): line for line in axes.lines}
    steps = lines["best so far"].get_xydata()
    assert steps[:, 0].tolist() == [*range(1, 9), 11]
    assert steps[:, 1] == pytest.approx([97.2] * 2 + [97.5] * 3 + [97.9] * 4)
    assert lines["best: job 5, 97.90 %"].get_xydata() == pytest.approx(np.array([[6, 97.9]]))
    assert lines["finished, worse than shown (2)"].get_xydata().tolist() == [[2, low], [5, low]]
    assert lines["pruned (2)"].get_xydata() == pytest.approx(np.array([[9, 97.6]]))
    assert lines["pruned (2)"].get_markerfacecolor() == "none"
    assert lines["failed (1)"].get_xydata().tolist() == [[10, low]]


def test_best_of_averaged_jobs_is_the_setting_with_the_best_mean_over_all_seeds() -> None:
    results = {0.1: [0.90, 0.99, 0.60], 0.2: [0.92, 0.93, 0.94], 0.3: [0.98, 0.98]}
    each = [(lr, seed, value) for lr, values in results.items() for seed, value in enumerate(values)]
    jobs = [
        Job(i, {"lr": lr, "seed": seed}, value, curve=[(1, value - 0.1), (2, value)])
        for i, (lr, seed, value) in enumerate(each)
    ]
    jobs += [Job(8, {"lr": 0.3, "seed": 2}, None, "failed"), Job(9, {"lr": 0.4, "seed": 0}, 0.7, "pruned")]
    first, best, lacking, pruned = averaged(jobs, "seed")
    assert (best.number, best.settings, best.value) == (3, {"lr": 0.2}, pytest.approx(0.93))
    assert np.array(best.curve) == pytest.approx(np.array([[1, 0.83], [2, 0.93]]))
    assert [job.state for job in (first, best, lacking, pruned)] == [
        "finished",
        "finished",
        "failed",
        "pruned",
    ]
    assert ACCURACY.ranked([first, best, lacking, pruned]) == [best, first]
    assert ACCURACY.about_best(best) == "best: mean of 3 jobs from job 3, 93.00 %"
    assert averaged([], "seed") == []


def test_history_is_not_flattened_if_many_jobs_are_equally_good(drawn: list[Figure]) -> None:
    jobs = grid([0.1, 0.4, 0.8, 0.85, *[1.0] * 12, *[0.98, 0.985, 0.99, 0.995]])
    search_plots.history(Path(), jobs, ACCURACY)
    assert 90 < drawn[0].axes[0].get_ylim()[0] < 98


def test_history_of_a_loss_goes_down(drawn: list[Figure]) -> None:
    losses = [0.3, 0.1, 0.2, 50.0, 0.15, 0.08]
    search_plots.history(Path(), [Job(i, {}, value) for i, value in enumerate(losses)], LOSS)
    (axes,) = drawn[0].axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines["best so far"].get_ydata()) == [0.3, 0.1, 0.1, 0.1, 0.1, 0.08, 0.08]
    assert axes.get_ylim()[1] < 1
    assert lines["finished, worse than shown (1)"].get_xydata().tolist() == [[4, axes.get_ylim()[1]]]
    assert axes.get_ylabel() == "validation loss"


@pytest.mark.parametrize("n", [1, 6, 30])
def test_bars_of_importance_have_whole_names_longest_first(drawn: list[Figure], n: int) -> None:
    names = [f"optimizer.weight_decay_of_the_layer_with_number_{i}" for i in range(n)]
    shares = {name: (i + 1) / (n * (n + 1) / 2) for i, name in enumerate(names)}
    search_plots.importance(Path(), shares, ACCURACY)
    check_texts(drawn[0])
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == names[::-1]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) == pytest.approx(100)
    assert axes.get_window_extent().width > 300
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first bar is at the top"


def test_slices_have_a_panel_for_each_of_the_most_important_settings(drawn: list[Figure]) -> None:
    jobs = [Job(i, {f"setting_{k}": i * k for k in range(1, 21)}, 0.9 + i / 100) for i in range(5)]
    order = [f"setting_{k}" for k in range(20, 0, -1)]
    sweep_plots.slices(Path(), jobs, ACCURACY, order)
    assert [axes.get_xlabel() for axes in drawn[0].axes if axes.axison] == order[:12]


def test_slices_color_the_points_of_a_search_by_the_number_of_the_job(drawn: list[Figure]) -> None:
    jobs = searched(60)
    sweep_plots.slices(Path(), jobs, ACCURACY, ["lr", "optimizer"], searched=True)
    lr, optimizer, colors = drawn[0].axes
    assert colors.get_ylabel() == "number of the job"
    finished = next(each for each in lr.collections if str(each.get_label()).startswith("finished"))
    assert len({tuple(color) for color in finished.get_facecolors()}) > 20
    pruned = [job for job in jobs if job.state == "pruned"]
    assert f"pruned, worse than shown ({len(pruned)})" in texts_of(drawn[0])
    assert {"0.001", "0.01", "0.1"} <= {text.get_text() for text in lr.get_xticklabels()}
    assert {text.get_text() for text in optimizer.get_xticklabels()} == set(OPTIMIZERS)


def test_settings_that_are_drawn_from_an_interval_have_a_linear_axis_and_wide_ones_a_logarithmic(
    drawn: list[Figure],
) -> None:
    keys = ["augmentation.rotation_degrees", "lr"]
    sweep_plots.slices(Path(), searched(60), ACCURACY, keys)
    for axes, transform in zip(drawn[0].axes, (float, math.log), strict=False):
        texts = [text for text in axes.get_xticklabels() if text.get_text()]
        values = [transform(float(text.get_text())) for text in texts]
        positions = [text.get_position()[0] for text in texts]
        assert len(texts) > 2
        assert np.polyfit(values, positions, 1, full=True)[1] < 1e-9


def test_lines_of_parallel_coordinates_end_at_their_values_with_the_best_on_top(drawn: list[Figure]) -> None:
    jobs = [*grid([0.90, 0.94, 0.92]), Job(3, {"lr": 0.2}, 0.91, "pruned")]
    search_plots.parallel_coordinates(Path(), jobs, ACCURACY)
    axes, values = drawn[0].axes
    best = next(line for line in axes.lines if str(line.get_label()).startswith("best"))
    x, height = best.get_xydata()[-1]
    assert values.transData.transform((x, 94.0)) == pytest.approx(axes.transData.transform((x, height)))
    pruned, finished = axes.collections
    assert len(pruned.get_segments()) == 1
    starts = [segment[0][1] for segment in finished.get_segments()]
    assert starts == pytest.approx([0, 1, 0.5]), "from the worst to the best"
    assert best.get_zorder() > finished.get_zorder() > pruned.get_zorder()


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=["accuracy", "loss"])
def test_lines_of_parallel_coordinates_are_darker_for_better_jobs(
    drawn: list[Figure], metric: Metric
) -> None:
    search_plots.parallel_coordinates(Path(), searched(40, metric), metric)
    (finished,) = (each for each in drawn[0].axes[0].collections if len(each.get_colors()) > 1)
    brightness = [sum(color[:3]) for color in finished.get_colors()]
    assert brightness[0] > 1.5 * brightness[-1], "from the worst to the best"
    assert brightness[0] == max(brightness)


def test_parallel_coordinates_are_limited_to_the_most_important_settings(drawn: list[Figure]) -> None:
    jobs = searched(30)
    order = list(jobs[0].settings)[::-1]
    search_plots.parallel_coordinates(Path(), jobs, ACCURACY, order)
    names = [text.get_text().replace("\n", "") for text in drawn[0].axes[0].get_xticklabels()]
    assert names == [*order[:8], "validation accuracy (%)"]


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=["accuracy", "loss"])
def test_pruned_curves_and_the_differences_of_the_best_are_both_in_view(
    drawn: list[Figure], metric: Metric
) -> None:
    jobs = searched(400, metric)
    curve_plots.curves(Path(), jobs, metric)
    (axes,) = drawn[0].axes
    ends = [metric.factor * job.curve[-1][1] for job in jobs if job.state == "pruned"]
    assert share_in_view(axes, ends) == 1
    good, best = metric.shown(metric.ranked(jobs))[[100, 0]]
    heights = axes.transData.transform([(0, good), (0, best)])[:, 1]
    assert abs(heights[1] - heights[0]) > 10
    grey = next(each for each in axes.collections if len(each.get_segments()) == len(ends))
    blue = next(each for each in axes.collections if each is not grey)
    assert grey.get_linewidth()[0] < 1
    assert len(blue.get_segments()) == len(metric.ranked(jobs))


def test_curves_reach_an_accuracy_of_100_percent_and_a_loss_that_diverged_leaves_the_plot(
    drawn: list[Figure],
) -> None:
    curve_plots.curves(Path(), [Job(0, {}, 1.0, curve=[(1, 0.5), (2, 0.98), (3, 1.0)])], ACCURACY)
    (axes,) = drawn[0].axes
    assert "100" in [text.get_text() for text in axes.get_yticklabels()]
    top, highest = axes.transData.transform([(0, 100), (0, axes.get_ylim()[1])])[:, 1]
    assert top == pytest.approx(highest)
    diverged = Job(1, {}, None, "failed", [(1, 2.0), (2, 1e12), (3, math.inf)])
    curve_plots.curves(Path(), [Job(0, {}, 0.1, curve=[(1, 2.0), (2, 0.5), (3, 0.1)]), diverged], LOSS)
    assert drawn[1].axes[0].get_ylim()[1] < 100


def test_front_connects_its_jobs_by_steps_and_labels_them(drawn: list[Figure]) -> None:
    values = [[0.90, 1.0], [0.95, 10.0], [0.93, 12.0], [0.97, 100.0]]
    metrics = [ACCURACY, Metric("seconds", maximize=False)]
    search_plots.front(Path(), [7, 8, 9, 10], values, metrics, [0, 1, 3])
    (axes,) = drawn[0].axes
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert steps.get_xydata().tolist() == [[1, 90], [10, 95], [100, 97]]
    assert [text.get_text() for text in axes.texts] == ["7", "10", "8"]
    assert texts_of(drawn[0]) == ["dominated (1)", "Pareto front (3)"]
    assert axes.get_xlabel() == "seconds, lower is better"
    assert axes.get_ylabel() == "validation accuracy (%), higher is better"
    check_texts(drawn[0])


@pytest.mark.parametrize(("objectives", "panels"), sample([(2, 1), (3, 3), (4, 6), (5, 10)], (2, 1), (3, 3)))
def test_front_of_more_objectives_has_a_panel_for_each_pair(
    drawn: list[Figure], objectives: int, panels: int
) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((60, objectives)).tolist()
    metrics = [Metric(f"objective {i}", maximize=i % 2 == 0) for i in range(objectives)]
    search_plots.front(Path(), range(1000, 1060), values, metrics, range(40))
    shown = [axes for axes in drawn[0].axes if axes.axison]
    assert len(shown) == panels
    assert all(axes.texts for axes in shown)
    check_texts(drawn[0])


def test_jobs_of_the_front_are_in_view_although_they_are_far_worse_in_one_objective(
    drawn: list[Figure],
) -> None:
    values: list[Any] = [[0.97 + i / 1000, 10.0 + i] for i in range(10)] + [[0.1, 1.0]]
    search_plots.front(Path(), range(11), values, [ACCURACY, Metric("seconds", maximize=False)], range(11))
    (axes,) = drawn[0].axes
    assert share_in_view(axes, [100 * value for value, _ in values]) == 1
