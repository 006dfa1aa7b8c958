"""The table of a sweep: swept settings, order, best job, and statistics over seeds."""

import sys
from pathlib import Path
from types import FrameType

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
    caption = "best 40 of 60 jobs by test accuracy; sweep.csv has all, which is optimistic for the best ones"
    assert found.table(40).caption.startswith(caption)
    assert found.table(40).as_markdown().startswith("best 40 of 60 jobs by")
    assert len(found.everything().as_csv().splitlines()) == 61
    assert found.best is not None
    assert found.best.directory.name == "59"
    caption, *lines = found.table(40).as_text()
    assert caption == found.table(40).caption
    assert len({len(line) for line in lines}) == 1, "columns are not aligned"


def test_statistics_over_seeds_require_jobs_that_differ_only_in_seed() -> None:
    assert not summary.summarize([job(0, seed=0, lr=1.0), job(1, seed=1, lr=2.0)]).over_seeds
    assert not summary.summarize([job(0, lr=1.0), job(1, lr=2.0)]).over_seeds
    assert not summary.summarize([job(0, lr=1.0), job(1, lr=2.0)]).seeds_table().rows
    jobs = [job(0, seed=0, lr=1.0), job(2, seed=1, lr=1.0), job(1, seed=0, lr=2.0)]
    table = summary.summarize(jobs).seeds_table()
    assert table.headings == ["lr", "seeds", "mean test accuracy", "std test accuracy", "mean seconds"]
    assert table.rows[0] == [1.0, 2, pytest.approx(0.91), pytest.approx(0.0141421356), 2.0]
    assert table.rows[1] == [2.0, 1, pytest.approx(0.91), None, 2.0]


def test_jobs_with_different_data_are_not_seeds_of_one_setting() -> None:
    jobs = [job(i, seed=i % 2, dataset={"path": f"/{'abc'[i // 2]}.npz"}) for i in range(6)]
    for each in jobs:
        each.data_sha256 = each.settings["dataset"]["path"][:2]
    found = summary.summarize(jobs)
    assert found.swept == ["seed", "dataset.path"]
    assert [(group.name, len(group.jobs)) for group in found.over_seeds] == [
        (f"dataset.path=/{name}.npz", 2) for name in "cba"
    ]
    assert found.table().headings[:3] == ["job", "seed", "dataset.path"]
    for each in jobs:
        each.data_sha256 = "the same data in three files"
    assert summary.summarize(jobs).swept == ["seed"]


def test_settings_with_fewer_seeds_come_after_those_with_the_most() -> None:
    """A setting with one lucky seed is not the best one."""
    jobs = [job(i, seed=i % 3, lr=1.0 + i // 3) for i in range(6)]
    found = summary.summarize([*jobs, job(9, seed=0, lr=3.0)])
    groups = [(group.name, len(group.jobs)) for group in found.over_seeds]
    assert groups == [("lr=2", 3), ("lr=1", 3), ("lr=3", 1)]
    caption = "3 settings by mean test accuracy over seeds, settings with fewer seeds last"
    assert found.seeds_table(40).caption == caption
    assert found.best
    assert found.best.directory.name == "3", "the first job of the best setting"


def test_long_table_over_seeds_shows_the_best_settings_and_says_where_the_rest_is() -> None:
    found = summary.summarize([job(i, seed=i % 2, lr=1.0 + i // 2) for i in range(120)])
    table = found.seeds_table(40)
    assert [row[0] for row in table.rows] == [60.0 - i for i in range(40)]
    assert table.caption == "best 40 of 60 settings by mean test accuracy over seeds; sweep_seeds.csv has all"
    assert len(found.seeds_table().rows) == 60
    assert found.seeds_table().caption == "60 settings by mean test accuracy over seeds"


def validated(number: int, validation: float, **settings: object) -> RunRecord:
    """Returns the record of a finished job with validation images."""
    found = job(number, **settings)
    found.results["validation/accuracy"] = validation
    return found


def test_jobs_with_validation_images_are_ranked_by_validation_accuracy() -> None:
    found = summary.summarize([validated(0, 0.8, lr=1.0), validated(1, 0.7, lr=2.0)])
    assert found.best
    assert found.best.directory.name == "0"
    table = found.table()
    assert table.headings[2:] == ["status", "validation accuracy", "test accuracy", "test loss", "seconds"]
    assert table.caption == "jobs are ranked by validation accuracy"
    assert table.rows[0][3:5] == [0.8, 0.9]
    assert found.table(1).caption == "best 1 of 2 jobs by validation accuracy; sweep.csv has all"
    jobs = [validated(i, 0.9 - 0.1 * (i // 2), lr=float(i // 2), seed=i % 2) for i in range(4)]
    found = summary.summarize(jobs)
    assert [group.name for group in found.over_seeds] == ["lr=0", "lr=1"]
    assert found.seeds_table().headings[2:6:2] == ["mean validation accuracy", "mean test accuracy"]


def test_of_equally_good_jobs_the_earliest_is_the_best_and_the_first_in_the_table() -> None:
    jobs = [validated(number, 0.9, lr=lr) for number, lr in ((2, 0.1), (10, 0.2), (1, 0.3), (3, 0.4))]
    found = summary.summarize(jobs, best_first=True)
    assert found.best is jobs[2]
    assert [row[0] for row in found.table().rows] == [1, 2, 3, 10]


def test_validation_and_test_accuracy_are_not_compared_with_each_other() -> None:
    found = summary.summarize([validated(0, 0.99, lr=1.0), job(1, lr=2.0)])
    assert found.ranked_by == "test/accuracy"
    assert found.best
    assert found.best.directory.name == "1"
    assert [row[3] for row in found.table().rows] == [0.99, None]
    assert found.table().as_text()[2].split()[3] == "0.9900"


def test_different_values_of_a_setting_look_different_and_csv_has_all_digits() -> None:
    rates = [0.30000000000000004, 0.1, 1e6, 0.12345678, 0.12345671]
    found = summary.summarize([job(i, lr=rate) for i, rate in enumerate(rates)])
    shown = [line.split()[1] for line in found.table().as_text()[2:]]  # after the caption and the headings
    assert shown == ["0.1", "0.12345671", "0.12345678", "0.3", "1e+06"]
    assert "0.30000000000000004" in found.everything().as_csv()


def test_jobs_with_many_swept_settings_are_identified_by_name() -> None:
    jobs = [
        job(i, **dict.fromkeys("abcdefg", i // 2), seed=i % 2) for i in range(4)
    ]  # such as those of two experiments
    for i, each in enumerate(jobs):
        each.name = f"experiment={'xy'[i // 2]} seed={i % 2}"
    found = summary.summarize(jobs)
    assert found.table().headings == ["job", "name", "status", "test accuracy", "test loss", "seconds"]
    assert [row[1] for row in found.table().rows] == [each.name for each in jobs]
    assert found.everything().headings[1:9] == [*"abcdefg", "seed"]
    assert [row[0] for row in found.seeds_table().rows] == ["experiment=y", "experiment=x"]
    assert found.seeds_table(columns=found.swept).headings[:8] == [*"abcdefg", "seeds"]
    for each in jobs:  # long names, of which parts are omitted, may be equal
        each.name = f"x=0 ... seed={each.settings['seed']}"
    found = summary.summarize(jobs)
    assert [row[:2] for row in found.seeds_table().rows] == [["x=0 ... (job 2)", 2], ["x=0 ... (job 0)", 2]]


def test_summary_of_many_jobs_is_made_in_linear_time() -> None:
    def calls(number: int) -> int:
        """Returns the number of function calls for the summary of ``number`` jobs."""
        jobs = [validated(i, i / 1e4, seed=i % 5, lr=float(i // 5)) for i in range(number)]
        made = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            found = summary.summarize(jobs)
            tables = [found.table(40), found.seeds_table(40)]
        finally:
            sys.setprofile(before)
        assert found.best
        assert [len(table.rows) for table in tables] == [40, 40]
        return made

    assert calls(4000) < 5 * calls(1000)
