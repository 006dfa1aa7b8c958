"""The command line as typed, the plan of a sweep, and advice that works when it is typed."""

import re
import shlex
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from conftest import ROOT, SMALL, Run, sample
from hints import alternatives
from mlp_tape.cli import command_line, composition, config_store, planner
from mlp_tape.cli.command_line import CommandLine
from mlp_tape.errors import ConfigError
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps.plan import Plan

config_store.register()
UNTRACKED = [*SMALL, "tracking.enabled=false"]
GRID = """# @package _global_
defaults:
  - override /dataset: digits
  - override /hydra/launcher: joblib
epochs: 1
report: none
model: {hidden_sizes: [8]}
tracking: {enabled: false}
hydra:
  mode: MULTIRUN
  launcher: {n_jobs: 2}
  sweeper:
    params:
      lr: 0.1,0.2
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lr=0.1", "-m", "seed=1,2"], CommandLine([], ["--multirun"], ["lr=0.1", "seed=1,2"])),
        (
            ["-cn", "other", "lr=1", "-cd=mine"],
            CommandLine(["--config-name=other", "--config-dir=mine"], [], ["lr=1"]),
        ),
        (["--config-path", "p", "-c", "job"], CommandLine(["--config-path=p"], ["--cfg=job"], [])),
        (["--info", "plugins", "~l2"], CommandLine([], ["--info=plugins"], ["~l2"])),
        (  # as `mlflow run -P lr=1e-2 -P ...` types them
            [
                *("--multirun", "--lr", "1e-2", "--model.hidden_sizes", "[8, 9]", "--note", "a -- b"),
                *("--experiment", "adam", "--hydra/launcher", "joblib", "--config-dir", "mine", "--l2=-1"),
            ],
            CommandLine(
                ["--config-dir=mine"],
                ["--multirun"],
                [
                    *("lr=1e-2", "model.hidden_sizes=[8, 9]", "note=a -- b"),
                    *("+experiment=adam", "hydra/launcher=joblib", "l2=-1"),
                ],
            ),
        ),
    ],
    ids=str,
)
def test_options_and_overrides_may_be_in_any_order(arguments: list[str], expected: CommandLine) -> None:
    assert command_line.parse(arguments) == expected
    assert command_line.parse(expected.arguments(ROOT)).overrides == expected.overrides


def test_a_misspelt_option_for_a_setting_is_corrected() -> None:
    with pytest.raises(ConfigError, match="unknown setting: learning_rate") as error:
        command_line.parse(["--learning_rate=0.1"])
    assert error.value.hint == "did you mean lr=0.1 ?"


@pytest.mark.parametrize("arguments", [["--nope"], ["--lr"], ["-m", "lr=1", "--cfg=x"], ["--config-dir"]])
def test_an_unknown_or_incomplete_option_is_reported_without_a_list_of_all_options(
    arguments: list[str],
) -> None:
    with pytest.raises(ConfigError) as error:
        command_line.parse(arguments)
    assert "\n" not in error.value.what


def test_a_config_path_is_relative_to_the_current_directory_or_to_run_py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = CommandLine(["--config-path=conf"], [], [])
    assert line.arguments(ROOT) == [f"--config-path={ROOT}/conf"]
    (tmp_path / "conf").mkdir()
    assert line.arguments(ROOT) == [f"--config-path={tmp_path}/conf"]


def test_what_is_typed_to_resume_a_sweep_changes_the_recorded_command_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    recorded = RunRecord(
        tmp_path,
        options=["--config-dir=mine"],
        overrides=["lr=0.1,0.2", "+experiment=x", "~l2", "hydra.verbose=true"],
    )
    typed = command_line.parse(["-m", "sweep.resume=last", "lr=0.3", "++l2=0.1", "epochs=2", "-cn", "other"])
    resumed = command_line.resumed(recorded, typed)
    assert resumed.config == ["--config-dir=mine", "--config-name=other"]
    assert resumed.overrides == [
        "+experiment=x", "hydra.verbose=true", "sweep.resume=last", "lr=0.3", "++l2=0.1", "epochs=2",
    ]  # fmt: skip
    assert resumed.of_a_sweep(False) == Command(
        resumed.config, [*resumed.overrides[:2], *resumed.overrides[3:]]
    )


def plan(*overrides: str) -> Plan:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        choices = planner.choices(config, loader)
        return planner.planned(config, choices, loader.load_sweep_config)


def test_zipped_settings_take_their_values_in_step() -> None:
    found = plan("seed=7,8", "lr=0.1,0.2", "model.dropout=0.3,0.4", "sweep.zip=[model.dropout,lr]")
    values = [(job.settings.seed, job.settings.lr, job.settings.model.dropout) for job in found.jobs]
    assert values == [(7, 0.1, 0.3), (7, 0.2, 0.4), (8, 0.1, 0.3), (8, 0.2, 0.4)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lr=0.1,0.2", "seed=1,2,3", "sweep.zip=[lr,seed]"], "lr has 2 values, seed has 3 values"),
        (["lr=0.1,0.2", "sweep.zip=[lr,seed]"], "seed has no values to sweep"),
        (["lr=0.1,0.2", "sweep.zip=[lr]"], "sweep.zip=[lr]: expected a list"),
        (["lr=interval(0,1)"], "a continuous range needs a search"),
        (["seed=range(3,3)"], "seed=range(3,3) has no values"),
        (
            ["lr=0.1,0.2", "seed=1,2", "hydra.sweep.subdir=${lr}"],
            "seed=2 has the directory 0.1 of another job",
        ),
        (["lr=0.1,-1"], "lr=-1: expected a finite number above 0"),
        (["lr=0.1,0.2", "note=a, b"], "note=a, b: note describes all jobs, and cannot be swept"),
        (["lr=0.1,0.2", "tags.team=a,b"], "tags.team describes all jobs"),
        (["lr=0.1,0.2", "l2=${nope}"], "Interpolation key 'nope' not found"),
        (
            ["seed=1,2", "lr=${oc.env:NOT_SET_ANYWHERE}"],
            "lr: the environment variable NOT_SET_ANYWHERE is not set",
        ),
    ],
    ids=str,
)
def test_a_sweep_with_an_invalid_job_is_rejected_as_a_whole(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(*overrides)


def test_the_values_that_are_proposed_for_a_range_are_valid() -> None:
    with pytest.raises(ConfigError) as error:
        plan("lr=interval(0,1)")
    values, search = alternatives(error.value.hint)
    assert search == ["+sweep=optuna"]
    assert [job.settings.lr for job in plan(*values).jobs] == [0.25, 0.75]


def test_the_values_of_a_config_are_part_of_the_plan_and_equal_jobs_are_counted(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    config = tmp_path / "experiment" / "mine.yaml"
    config.write_text("# @package _global_\nhydra: {sweeper: {params: {seed: 'range(1,3)'}}}\n")
    own = [f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"]
    found = plan("lr=0.1,1e-1,0.2", *own)
    assert [(job.settings.lr, job.settings.seed) for job in found.jobs] == [
        (0.1, 1),
        (0.2, 1),
        (0.1, 2),
        (0.2, 2),
    ]
    assert found.equal == 2
    config.write_text(config.read_text().replace("range(1,3)", "1,-2"))
    with pytest.raises(ConfigError, match="seed=-2: expected"):
        plan(*own)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["~l2", "l2=0"], "leave out ~l2"),
        (["~stopping"], "every setting needs one; leave out ~stopping"),
        (["~stopping.patience"], "leave out ~stopping.patience"),
        (
            ["stopping={min_delta:0.1}"],
            "the settings of stopping are stopping.patience, stopping.monitor",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_removed_or_is_unknown_in_a_group_is_named(typed: list[str], hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        composition.settings_of(ROOT / "conf", typed)
    assert error.value.hint == hint


ADVICE = [
    (["learning_rate=0.1"], "lr=0.1"),
    (["tags.host=a"], "tags.my_host=a"),
    (["+lrr=0.1"], "lr=0.1"),
    (["experiment=adam"], "+experiment=adam"),
    (["+experiment=adamm"], "+experiment=adam"),
    (["lr=${oc.decode:${oc.env:HOME_LR}}"], 'lr="${oc.decode:${oc.env:HOME_LR}}"'),
    (["~l2"], "l2=0.0"),
    (["~schedule"], "schedule=constant"),
    (["lr=${oc.env:NOT_SET_ANYWHERE}"], "lr=0.001"),
    (["optimizer=adm"], "optimizer=adam"),
    (["optimizer=rmspop"], "optimizer=rmsprop"),
    (["'l2=${lr}'"], "l2=${lr}"),
    (["'model.hidden_sizes'=[1]"], "model.hidden_sizes=[1]"),
    (["model.hidden_sizes={a:1}"], "model.hidden_sizes=[256,128]"),
    (["model.activation=rleu"], "model.activation=relu"),
    (["hydra/launcher=joblb"], "hydra/launcher=joblib"),
]


@pytest.mark.parametrize(("typed", "advice"), ADVICE, ids=str)
def test_advice_works_when_it_is_typed(
    typed: list[str], advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME_LR", "0.5")
    with pytest.raises(ConfigError) as error:
        composition.settings_of(ROOT / "conf", typed)
    words = [word for word in shlex.split(error.value.hint) if "=" in word]
    assert words[-1] == advice
    composition.settings_of(ROOT / "conf", words[-1:])


@pytest.mark.parametrize(
    ("typed", "advice"),
    sample(
        ADVICE := [
            (
                ["-m", "lr=1,2", "hydra.launcher.n_jobs=2"],
                ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            ),
            (["-m", "lr=1,2", "hydra.launcher=joblib"], ["hydra/launcher=joblib"]),
            (["-m", "hydra.sweeper.params.lr=0.1,0.2"], ["lr=0.1,0.2"]),
            (["-m", "+hydra.sweeper.params.lr='0.1,0.2'"], ["lr=0.1,0.2"]),
            (["-m", "hydra.sweeper.params={lr:'0.1,0.2'}"], ["lr=0.1,0.2"]),
            (["hydra.verbose=true"], ["hydra/job_logging=default", "hydra.verbose=true"]),
            (
                ["-m", "lr=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0"],
                ["hydra.launcher.n_jobs=-1"],
            ),
            (["-cn", "nope"], ["--config-name=config"]),
        ],
    ),
    ids=str,
)
def test_advice_about_hydra_works_when_it_is_typed(
    run_py: Run, tmp_path: Path, typed: list[str], advice: list[str]
) -> None:
    refused = run_py(tmp_path, *typed, *UNTRACKED)
    assert refused.returncode == 2, refused.stderr
    _, hint = refused.stderr.splitlines()
    assert [word.rstrip(",") for word in shlex.split(hint) if "=" in word][: len(advice)] == advice
    keys = {word.partition("=")[0] for word in advice} | {"hydra.launcher", "-cn", "nope"}
    kept = [text for text in typed if text.partition("=")[0] not in keys and "sweeper.params" not in text]
    done = run_py(tmp_path, *kept, *advice, *UNTRACKED)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_own_experiments_sweep_resume_and_repeat(run_py: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment" / "grid.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(GRID)
    done = run_py(tmp_path, "--config-dir", "mine", "+experiment=grid", "seed=1,1")
    assert done.returncode == 0, done.stderr
    assert "2 jobs (2 more are equal to one of them)" in done.stdout
    (sweep,) = [path.parent for path in tmp_path.glob("multirun/*/*/run.json")]
    jobs = [run_record.read(path.parent) for path in sorted(sweep.glob("*/run.json"))]
    assert [job.settings["lr"] for job in jobs] == [0.1, 0.2]

    command = shlex.split(run_record.read(sweep).command)
    assert command[2:] == ["-m", "--config-dir=mine", "+experiment=grid", "seed=1,1"]
    for job in jobs:
        _, _, *arguments = shlex.split(job.command)
        assert run_py(tmp_path, *arguments, "hydra.run.dir=again").returncode == 0
        again = run_record.read(tmp_path / "again")
        assert {**again.settings, "sweep": None} == {**job.settings, "sweep": None}
        assert again.results == job.results
        for path in sorted((tmp_path / "again").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()

    more = run_py(tmp_path, "-m", "sweep.resume=last", "hydra.sweeper.params.lr='0.2,0.4'")
    assert more.returncode == 0, more.stderr
    assert sorted(run_record.read(path.parent).settings["lr"] for path in sweep.glob("*/run.json")) == [
        0.1,
        0.2,
        0.4,
    ]
    mine.parent.parent.rename(tmp_path / "elsewhere")
    lost = run_py(tmp_path, "-m", "sweep.resume=last")
    assert lost.returncode == 2
    assert f"--config-dir=mine: there is no directory {tmp_path / 'mine'}" in lost.stderr


@pytest.mark.long
def test_a_sweep_is_not_extended_with_other_data(run_py: Run, tmp_path: Path) -> None:
    assert run_py(tmp_path, "-m", "lr=0.1,0.2", *UNTRACKED).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for typed, named in ((["dataset=mnist_5k"], "dataset=mnist_5k"), (["validation_fraction=0.5"],) * 2):
        refused = run_py(tmp_path, "-m", "sweep.resume=last", *typed)
        assert refused.returncode == 2
        assert (
            f"{named if isinstance(named, str) else named[0]} is not what the jobs of the sweep have"
            in refused.stderr
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


@pytest.mark.long
def test_relative_paths_do_not_depend_on_hydra_job_chdir(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=0.1,0.2", *SMALL, "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    assert [path.parent for path in tmp_path.rglob("mlflow.db")] == [tmp_path]


@pytest.mark.long
def test_hydra_full_error_shows_the_error_of_a_job(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "lr=1e20,0.1", *UNTRACKED, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert done.stderr.index("errors.DivergenceError") < done.stderr.index("errors.SweepError")
