"""The table of a sweep: swept settings, order, best job, and statistics over seeds."""

from pathlib import Path

import pytest

from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import summary


def job(number: int, **settings: object) -> RunRecord:
    """Returns the record of a finished job, with an accuracy of 0.9 + number / 100."""
    results = {"test/accuracy": 0.9 + number / 100, "test/loss": 0.1}
    return RunRecord(
        Path(f"/sweep/{number}"), status="FINISHED", settings=settings, results=results, seconds=2.0
    )


def test_jobs_are_sorted_by_the_values_of_the_swept_settings() -> None:
    sizes = ([512], [64, 64], [64], [128])
    jobs = [job(i, lr=lr, model={"hidden_sizes": sizes[i]}) for i, lr in enumerate((1.0, 0.1, 10.0, 9.0))]
    found = summary.summarize(jobs)
    assert found.swept == ["lr", "model.hidden_sizes"]
    assert [row[1] for row in found.table().rows] == [0.1, 1.0, 9.0, 10.0]
    found = summary.summarize([job(i, model={"hidden_sizes": size}) for i, size in enumerate(sizes)])
    assert [row[1] for row in found.table().rows] == [[64], [64, 64], [128], [512]]
    mixed = summary.summarize([job(0, path="b"), job(1, path=None), job(2, path="a")])
    assert [row[1] for row in mixed.table().rows] == [None, "a", "b"]


def test_long_table_shows_the_best_jobs_and_csv_shows_all() -> None:
    found = summary.summarize([job(i, lr=i / 7) for i in range(60)])
    assert len(found.table(40).rows) == 40
    assert found.table(40).rows[0][0] == 59
    assert len(found.everything().as_csv().splitlines()) == 61
    assert found.best is not None
    assert found.best.directory.name == "59"
    lines = found.table(40).as_text()
    assert len({len(line) for line in lines}) == 1, "columns are not aligned"


def test_statistics_over_seeds_require_jobs_that_differ_only_in_seed() -> None:
    assert summary.summarize([job(0, seed=0, lr=1.0), job(1, seed=1, lr=2.0)]).over_seeds() is None
    assert summary.summarize([job(0, lr=1.0), job(1, lr=2.0)]).over_seeds() is None
    table = summary.summarize(
        [job(0, seed=0, lr=1.0), job(2, seed=1, lr=1.0), job(1, seed=0, lr=2.0)]
    ).over_seeds()
    assert table is not None
    assert table.headings == ["lr", "seeds", "mean accuracy", "std", "mean seconds"]
    assert table.rows[0] == [1.0, 2, pytest.approx(0.91), pytest.approx(0.0141421356), 2.0]
    assert table.rows[1] == [2.0, 1, pytest.approx(0.91), None, 2.0]


def test_jobs_with_many_swept_settings_are_identified_by_name() -> None:
    jobs = [
        job(i, **dict.fromkeys("abcdefg", i // 2), seed=i % 2) for i in range(4)
    ]  # such as those of two experiments
    for i, each in enumerate(jobs):
        each.name = f"experiment={'xy'[i // 2]} seed={i % 2}"
    found = summary.summarize(jobs)
    assert found.table().headings == ["job", "name", "status", "accuracy", "loss", "seconds"]
    assert [row[1] for row in found.table().rows] == [each.name for each in jobs]
    assert found.everything().headings[1:9] == [*"abcdefg", "seed"]
    table = found.over_seeds()
    assert table is not None
    assert [row[0] for row in table.rows] == ["experiment=x", "experiment=y"]
