"""The importance of settings is that of functions of which it is known."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlp_tape.sweeps.importance import importance

SIZES = ([64], [128], [256, 128])


def searched(n: int) -> list[dict[str, Any]]:
    """Returns settings as a random search proposes them."""
    rng = np.random.default_rng(0)
    return [
        {
            "lr": float(10 ** rng.uniform(-4, 0)),
            "optimizer": str(rng.choice(["sgd", "adam", "rmsprop"])),
            "model.hidden_sizes": SIZES[rng.integers(3)],
            "dropout": float(rng.uniform(0, 0.5)),
            "nesterov": bool(rng.integers(2)),
        }
        for _ in range(n)
    ]


KNOWN: list[tuple[Callable[[dict[str, Any]], float], list[str]]] = [
    (lambda job: 0.9 - 0.1 * abs(math.log10(job["lr"]) + 1.5), ["lr"]),
    (lambda job: {"sgd": 0.8, "adam": 0.9, "rmsprop": 0.85}[job["optimizer"]], ["optimizer"]),
    (lambda job: float(len(job["model.hidden_sizes"])), ["model.hidden_sizes"]),
    (lambda job: 1.0 if job["nesterov"] else 0.5, ["nesterov"]),
    (lambda job: 3 * job["dropout"] + 0.2 * math.log10(job["lr"]), ["dropout", "lr"]),
]


@pytest.mark.parametrize(("function", "decisive"), KNOWN)
def test_settings_on_which_the_result_depends_are_the_important_ones(
    function: Callable[[dict[str, Any]], float], decisive: list[str]
) -> None:
    settings = searched(100)
    shares = importance(settings, [function(job) for job in settings])
    assert shares is not None
    assert list(shares)[: len(decisive)] == decisive, "most important first"
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(shares[key] for key in decisive) > 0.9


def test_shares_of_a_sum_are_near_its_variances() -> None:
    rng = np.random.default_rng(1)
    settings = [{"a": float(a), "b": float(b), "c": float(c)} for a, b, c in rng.uniform(size=(400, 3))]
    shares = importance(settings, [2 * job["a"] + job["b"] for job in settings])
    assert shares is not None
    assert shares["a"] == pytest.approx(0.8, abs=0.06)
    assert shares["b"] == pytest.approx(0.2, abs=0.06)


def test_an_interaction_counts_for_both_settings() -> None:
    settings = [{"a": a, "b": b, "c": c} for a, b, c in itertools.product(range(4), range(4), range(3))]
    shares = importance(settings, [float((job["a"] < 2) == (job["b"] < 2)) for job in settings])
    assert shares is not None
    assert shares["a"] == pytest.approx(0.5, abs=0.1)
    assert shares["c"] < 0.1


def test_numbers_depend_neither_on_the_direction_nor_on_how_bad_the_worst_are_nor_on_chance() -> None:
    settings = searched(60)
    values = [0.9 - 0.1 * abs(math.log10(job["lr"]) + 1.5) - 0.05 * job["dropout"] for job in settings]
    shares = importance(settings, values)
    assert shares == importance(settings, values)
    worst = min(values)
    assert shares == importance(settings, [-1e9 if value == worst else value for value in values])
    mirrored = importance(settings, [-value for value in values])
    assert shares is not None
    assert mirrored is not None
    assert [round(mirrored[key], 1) for key in shares] == [round(share, 1) for share in shares.values()]


def test_settings_that_some_jobs_lack_are_among_them() -> None:
    settings = [{"optimizer": "sgd", "momentum": m / 10} for m in range(10)]
    settings += [{"optimizer": "adam", "seed": seed} for seed in range(10)]
    shares = importance(settings, [job.get("momentum", 0.0) + 0.01 * len(job) for job in settings])
    assert shares is not None
    assert set(shares) == {"optimizer", "momentum", "seed"}


def test_jobs_without_a_result_are_left_out() -> None:
    settings = searched(40)
    values = [job["dropout"] for job in settings]
    failed = [{**settings[0], "dropout": 100.0}] * 3
    assert importance(settings + failed, [*values, None, math.nan, math.inf]) == importance(settings, values)


@pytest.mark.parametrize("n", [20, 60])
def test_results_of_chance_have_no_importance(n: int) -> None:
    assert importance(searched(n), list(np.random.default_rng(n).random(n))) is None


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ([], []),
        ([{"a": i, "b": -i} for i in range(5)], [0.1, 0.2, 0.3, 0.4, 0.5]),
        ([{"a": i, "b": 2} for i in range(9)], [i / 10 for i in range(9)]),
        ([{"a": 1, "b": 2} for _ in range(9)], [i / 10 for i in range(9)]),
        ([{"a": i, "b": i % 2} for i in range(9)], [0.5] * 9),
    ],
    ids=["no job", "few jobs", "one setting", "nothing varies", "equal results"],
)
def test_nothing_is_said_where_nothing_is_known(settings: list[dict[str, Any]], values: list[float]) -> None:
    assert importance(settings, values) is None
