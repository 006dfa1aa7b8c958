"""Paths and texts work as they are typed, in a run, in a sweep, and when a command is repeated."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings, strategies
from omegaconf import OmegaConf

from conftest import LIMIT, ROOT, SMALL, Run, sample
from corpus import save
from mlp_tape.cli import command_line, composition, free_text
from mlp_tape.storage import run_record

CONF = ROOT / "conf"
NAMES = [
    "my data (1).npz",
    "größe.npz",
    "数据.npz",
    "it's.npz",
    'say "x".npz',
    "a#b.npz",
    "a & b.npz",
    "a[1].npz",
    "[1].npz",
    "[1]",
    "(1).npz",
    "choice(1).npz",
    "choice(a,b)",
    "a=b.npz",
    "100%.npz",
    "$HOME.npz",
    "${x}.npz",
    "a,b.npz",
    "{}.npz",
    "{a: 1}",
    "a:b.npz",
    "C:\\data\\m.npz",
    "a\\,b.npz",
    "ends with \\",
    "a;b|c<d>!^`.npz",
    "é combining.npz",
    "007",
    "1e-3",
    "true",
    "null",
    "'quoted'",
    " padded ",
    "new\nline.npz",
    "~tilde.npz",
    "+plus@at.npz",
]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", sample(NAMES, *NAMES[::5]))
def test_a_file_of_any_name_is_found_as_it_is_typed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for typed in (name, f"./{name}", f"{tmp_path}/{name}"):
        found = composition.settings_of(CONF, [f"dataset.path={typed}"]).dataset.path
        assert found == str(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert composition.settings_of(CONF, [f"resume={name}/"]).resume == f"{name}/"


def test_a_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert composition.settings_of(CONF, ["dataset.path=~/ä (1).npz"]).dataset.path == f"{tmp_path}/ä (1).npz"
    assert composition.settings_of(CONF, ["resume=~/run"]).resume == f"{tmp_path}/run"
    assert free_text.as_typed(["hydra.run.dir=~/my run"], False) == [f"hydra.run.dir={tmp_path}/my run"]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"null", "'quoted'", "${x}.npz", " padded "}))
@pytest.mark.parametrize("key", ["dataset.path", "note", "tags.x", "tracking.experiment", "run_name"])
def test_a_text_is_what_was_typed(key: str, name: str) -> None:
    """Without a file of that name. A comma in a path could be that of a sweep, and a backslash Hydra's."""
    if (key in ("dataset.path", "tracking.experiment") and "," in name) or "\\," in name:
        pytest.skip("has a meaning to Hydra")
    if key == "run_name" and "\n" in name:
        pytest.skip("a name is a line")
    given = composition.settings_of(CONF, [f"{key}={name}"])
    found = {
        "dataset.path": str(given.dataset.path).removeprefix(f"{Path.cwd()}/"),
        "note": given.note,
        "tags.x": given.tags.get("x"),
        "tracking.experiment": given.tracking.experiment,
        "run_name": given.run_name,
    }
    assert found[key] == name


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("note='in quotes, for Hydra'", "in quotes, for Hydra"),
        ('tracking.experiment="say \\"x\\""', 'say "x"'),
        ("tracking.experiment=a\\,b", "a,b"),
        ("note=${dataset.name} again", "mnist again"),
        ("resume=last", "last"),
        ("resume=12345678901234567890123456789e12", "12345678901234567890123456789e12"),
        ("note=null", None),
    ],
)
def test_what_has_a_meaning_to_hydra_keeps_it(typed: str, value: str | None) -> None:
    given = composition.settings_of(CONF, [typed])
    found = {"note": given.note, "tracking.experiment": given.tracking.experiment, "resume": given.resume}
    assert found[typed.partition("=")[0]] == value


@given(strategies.text(alphabet="ab\\'\"${},[]()=:#& 1ü\n", max_size=12))
@settings(max_examples=500, deadline=None)
def test_a_quoted_text_is_the_same_text_to_hydra(text: str) -> None:
    value = OverridesParser.create().parse_override(f"k={free_text.literal(text)}").value()
    assert OmegaConf.create({"a": 1, "k": value}).k == text


def swept(*overrides: str) -> list[list[object]]:
    """Returns the values of each override of a sweep."""
    line = command_line.parse(["-m", *overrides])
    parsed = OverridesParser.create().parse_overrides(line.overrides)
    return [
        [OmegaConf.create({"a": OverridesParser.create().parse_override(f"k={each}").value()}).a
         for each in override.sweep_string_iterator()]
        if override.is_sweep_override() else [OmegaConf.create({"a": override.value()}).a]
        for override in parsed
    ]  # fmt: skip


def test_commas_separate_the_values_of_a_sweep_and_are_part_of_files_and_descriptions(tmp_path: Path) -> None:
    names = ["a.npz", "it's.npz", "a,1.npz", "größe [1].npz", "C:\\m.npz", "{}.npz", "x(1).npz"]
    for name in names:
        (tmp_path / name).touch()
    assert swept(f"dataset.path={','.join(names)}") == [names]
    assert swept("dataset.path=no such (1).npz,größe.npz") == [["no such (1).npz", "größe.npz"]]
    assert swept("tracking.experiment='a,b','c d',ü") == [["a,b", "c d", "ü"]]
    assert swept("tracking.experiment=choice(a,b)") == [["a", "b"]]
    assert swept("note=why, I did it", "tags.x=a,b") == [["why, I did it"], ["a,b"]]


@pytest.mark.long
@pytest.mark.parametrize("name", sample(NAMES, *NAMES[:4]))
def test_a_run_on_a_file_of_any_name_is_repeated_and_resumed(run_py: Run, tmp_path: Path, name: str) -> None:
    if name in ("ends with \\", "new\nline.npz"):
        pytest.skip("not the name of a data set")
    save()(tmp_path / "saved.npz")
    (tmp_path / "saved.npz").rename(tmp_path / name)
    run = f"run {name}"
    typed = ["dataset=arrays", f"dataset.path={name}", f"hydra.run.dir={run}", f"note={name} of mine"]
    typed += [*SMALL[1:], "tracking.uri=sqlite:///a store (ü).db"]
    done = run_py(tmp_path, *typed)
    assert done.returncode == 0, done.stderr
    record = run_record.read(tmp_path / run)
    assert record.settings["dataset"]["path"] == str(tmp_path / name)
    assert record.settings["note"] == f"{name} of mine"
    assert (tmp_path / "a store (ü).db").exists()

    python, program, *arguments = shlex.split(record.command)
    assert (python, program) == ("python", "run.py")
    assert run_py(tmp_path, *arguments, "hydra.run.dir=again").returncode == 0
    again = run_record.read(tmp_path / "again")
    assert {**again.settings, "resume": None} == {**record.settings, "resume": None}

    more = run_py(tmp_path, f"resume={run}/", "epochs=2")
    assert more.returncode == 0, more.stderr
    assert run_record.read(tmp_path / run).steps == 2


@pytest.mark.long
@pytest.mark.concurrency
def test_a_sweep_over_files_of_any_name_runs_in_parallel_and_is_resumed(run_py: Run, tmp_path: Path) -> None:
    names = ["größe [1].npz", "it's (2).npz", "a,1.npz", "C:\\m.npz"]
    for i, name in enumerate(names):
        images = np.full((20, 4, 4), i, np.uint8)
        save(x_train=images)(tmp_path / "saved.npz")
        (tmp_path / "saved.npz").rename(tmp_path / name)
    typed = ["-m", "dataset=arrays", f"dataset.path={','.join(names)}", *SMALL[1:], "note=a, b: (ü)"]
    done = run_py(tmp_path, *typed, "hydra/launcher=joblib", "hydra.sweep.dir=my sweep (ü)")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "my sweep (ü)"

    def paths() -> list[str]:
        jobs = [run_record.read(path.parent) for path in sorted(sweep.glob("*/run.json"))]
        assert {job.status for job in jobs} == {"FINISHED"}
        return [Path(job.settings["dataset"]["path"]).name for job in jobs]

    assert sorted(paths()) == sorted(names)
    (job, *_) = [run_record.read(path.parent) for path in sorted(sweep.glob("*/run.json"))]
    assert run_py(tmp_path, *shlex.split(job.command)[2:], "hydra.run.dir=again").returncode == 0
    more = run_py(tmp_path, "-m", "sweep.resume=my sweep (ü)", "seed=0,1")
    assert more.returncode == 0, more.stderr
    assert sorted(paths()) == sorted(names * 2)


def test_a_path_with_a_variable_works_as_the_shell_expands_it(
    offline: dict[str, str], tmp_path: Path
) -> None:
    save()(tmp_path / "my data (1).npz")
    program = shlex.join([sys.executable, str(ROOT / "run.py"), "--cfg", "job"])
    command = f'{program} "dataset.path=$PLACE/my data (1).npz"'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=offline | {"PLACE": str(tmp_path)}, capture_output=True,
        text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    assert OmegaConf.create(done.stdout).dataset.path == f"{tmp_path}/my data (1).npz"
