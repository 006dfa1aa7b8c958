"""A command line means in a sweep what it means in a run, and the recorded command repeats it.

The command lines are generated from the grammar of Hydra's overrides. All of the program runs, from its
arguments to the start of a job, except for the training itself.
"""

import contextlib
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import ROOT, sample
from mlp_tape.cli import free_text, main
from mlp_tape.cli.command_line import CommandLine
from mlp_tape.cli.main import Invocation
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, job_identity
from mlp_tape.runs import run
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps import job, sweep
from mlp_tape.sweeps.plan import Plan

CONF = ROOT / "conf"
ENVIRONMENT = {"MLP_LR": "0.25", "MLP_NAME": "a name", "MLP_SIZES": "[3,4]"}
# Overrides by the part of the grammar that they exercise. A `~` is needed where a group comes first.
PARTS: dict[str, list[str]] = {
    "numbers": ["lr=0.01", "lr=1e-2", "lr=.5", "batch_size=0064", "lr=1_0", "epochs=2", "l2=0"],
    "casts": ["lr=float(1)", "epochs=int(3.0)", "tracking.enabled=bool(false)", "tracking.experiment=str(5)"],
    "quotes": [
        "tracking.experiment='a b'",
        'tracking.experiment="a=b"',
        "tracking.experiment='it\\'s'",
        'tracking.experiment="say \\"x\\""',
        "tracking.experiment=a b",
        "tracking.experiment='[x,y]'",
        "tracking.experiment=a\\,b",
        "tracking.experiment='a,b'",
        "tracking.experiment=' padded '",
        "tracking.experiment='a:b#c'",
        "tracking.experiment='back\\\\slash'",
    ],
    "unicode": [
        "tracking.experiment='Versüch'",
        "tracking.experiment='日本 😀'",
        "dataset.path='/tmp/ä b.npz'",
    ],
    "lists": [
        "model.hidden_sizes=[10,20]",
        "model.hidden_sizes=[ 3 , 4 ]",
        "model.hidden_sizes=[]",
        "'model.hidden_sizes'=[1]",
        "model.hidden_sizes=${oc.decode:'[5,6]'}",
    ],
    "dictionaries": [
        "stopping={monitor:accuracy}",
        "checkpoint={every_steps:7}",
        "model={hidden_sizes:[4],dropout:0.2}",
        "tracking={experiment:'x y',patience:5}",
    ],
    "interpolations": [
        "l2=${lr}",
        "augment.shift=${seed}",
        "tracking.experiment=${dataset.name}_${seed}",
        "'l2=${lr}'",
        "model.dropout=${validation_fraction}",
    ],
    "environment": [
        "lr=${oc.env:MLP_LR}",
        "lr='${oc.decode:${oc.env:MLP_LR}}'",
        "tracking.experiment=${oc.env:MLP_NAME}",
        "lr=${oc.env:MLP_NOT_SET,0.3}",
        "lr=${oc.env:MLP_NOT_SET}",
        "model.hidden_sizes='${oc.decode:${oc.env:MLP_SIZES}}'",
    ],
    "deletions": ["~stopping.patience", "~l2", "~schedule", "~optimizer=sgd", "~tracking.uri"],
    "descriptions": [
        "run_name=first of all",
        "tags.team=x",
        "+tags.team=x",
        "tags={team: x, ticket: 42}",
        "tags.a.b=1.5",
        "note='why, I did it: **bold** = ${lr}'",
        "note='lr ist ä'",
        "~note",
        "~tags",
    ],
    "additions": ["+experiment=adam", "++lr=0.2", "+lr=0.2", "++model.dropout=0.1", "+experiment=[adam]"],
    "groups": [
        "optimizer=adam",
        "schedule=cosine",
        "optimizer=momentum",
        "model=mlp",
        "optimizer=",
        "schedule=nope",
    ],
    "hydra": [
        "hydra.job.name=mine",
        "hydra.verbose=false",
        "hydra.sweep.subdir=${hydra.job.num}",
        "hydra.run.dir=x",
    ],
}
AXES = [
    "seed=5,6",
    "seed=range(5,7)",
    "seed=choice(5,6)",
    "lr=sort(0.4,0.3)",
    "lr=sort(0.3,0.4,reverse=true)",
    "lr=shuffle(0.3,0.4)",
    "optimizer=glob(ada*)",
    "optimizer=adam,sgd",
    "model.hidden_sizes=[7],[8,9]",
    "tracking.experiment='a,b','c d'",
    "tracking.experiment='ä',ü",
    "l2=${lr},0.125",
    "model={dropout:0.1},{dropout:0.2}",
    "+experiment=adam,momentum",
    "stopping.monitor=loss,accuracy",
    "seed=5,6,5",
]


def generated(count: int) -> list[tuple[list[str], str]]:
    """Returns command lines of up to four overrides, each with a last override that sweeps over values."""
    chosen = random.Random(19)
    lines = []
    for i in range(count):
        kinds = chosen.sample(sorted(PARTS), chosen.randint(1, 4))
        first = sorted(PARTS)[i % len(PARTS)]  # each kind occurs equally often
        lines.append(
            ([chosen.choice(PARTS[kind]) for kind in dict.fromkeys([first, *kinds])], AXES[i % len(AXES)])
        )
    return lines


@dataclass
class Started:
    """What the program would have started."""

    code: int = 0
    jobs: list[tuple[Settings, Command]] = field(default_factory=list)
    plan: Plan | None = None
    command: Command | None = None

    @property
    def identities(self) -> list[str]:
        return [job_identity(settings, "") for settings, _ in self.jobs]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Returns a function that runs the program up to the training."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def started(*arguments: str) -> Started:
        found = Started()

        @contextlib.contextmanager
        def opened(plan: Plan, directory: Path, command: Command, get_ready: Any) -> Iterator[Plan]:
            found.plan, found.command = plan, command
            directory.mkdir(parents=True)
            yield plan

        def run_job(settings: Settings, sweep: Path, number: int, overrides: list[str], folder: str) -> float:
            assert found.command
            record = RunRecord(
                sweep, options=found.command.options, overrides=found.command.overrides,
                is_multirun_by_config=found.command.is_multirun_by_config,
            )  # fmt: skip
            own = [text for text in overrides if not job.is_of_a_sweep(text)]
            found.jobs.append((settings, job._command(record, own)))
            return 0.0

        def execute_run(settings: Settings, directory: Path, command: Command) -> float:
            found.jobs.append((settings, command))
            return 0.0

        monkeypatch.setattr(sweep, "opened", opened)
        monkeypatch.setattr(job, "run", run_job)
        monkeypatch.setattr(run, "execute_run", execute_run)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        invocation = Invocation(CONF, CommandLine([], [], []))
        main._invocation.set(invocation)
        found.code = main._exit_code(invocation)
        return found

    return started


def composed(overrides: list[str]) -> Settings:
    """Returns the settings that Hydra composes."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return validation.parse(hydra.compose("config", free_text.as_typed(overrides, is_sweep=False)))


def combinations(typed: list[str], axis: str) -> list[list[str]]:
    """Returns the overrides of the jobs that Hydra's own sweeper runs."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        (swept,) = parser.parse_overrides(free_text.as_typed([axis], is_sweep=True))
        kept = [
            text
            for text in free_text.as_typed(typed, is_sweep=True)
            if parser.parse_override(text).get_key_element() != swept.get_key_element()
        ]
        (batch,) = BasicSweeper.split_arguments([swept], None)
    return [[*kept, *each] for each in batch]


LINES = generated(200)


@pytest.mark.parametrize(("typed", "axis"), sample(LINES, *LINES[:2]), ids=str)
def test_a_generated_command_line_means_the_same_in_a_run_and_in_a_sweep(
    start: Any, capsys: pytest.CaptureFixture[str], typed: list[str], axis: str
) -> None:
    once = start(*typed)
    refusal = capsys.readouterr().err
    swept = start("-m", *typed, axis)
    if once.code:
        assert once.code == 2
        assert not once.jobs
        first, second = refusal.splitlines()
        assert first.startswith("error: ")
        assert second.strip()
        if not overridden(typed, axis):
            assert swept.code == 2, capsys.readouterr().err
            assert not swept.jobs
        return
    ((settings, command),) = once.jobs
    assert settings == composed([text for text in typed if not text.startswith("hydra")])
    again = start(*command.options, *command.overrides)
    assert again.identities == once.identities
    if swept.code:  # together they are refused, as by Hydra
        assert swept.code == 2
        assert not swept.jobs
        return

    expected = [composed(each) for each in combinations(hydraless(typed), axis)]
    found = {
        job_identity(settings, ""): settings for settings in reversed(expected)
    }  # the first of equal ones
    assert set(swept.identities) == set(found)
    assert len(swept.identities) == len(found), "an equal job was run twice"
    assert swept.plan
    assert swept.plan.equal == len(expected) - len(found)
    for settings, command in swept.jobs:
        assert settings == found[job_identity(settings, "")]
        repeated = start(*command.options, *command.overrides)
        assert repeated.identities == [job_identity(settings, "")], command
    assert swept.command
    resumed = start("-m", *swept.command.options, *swept.command.overrides)
    assert sorted(resumed.identities) == sorted(swept.identities)


def hydraless(typed: list[str]) -> list[str]:
    return [text for text in typed if not text.startswith("hydra")]


def overridden(typed: list[str], axis: str) -> bool:
    """Returns whether the axis sets what an earlier override sets, which may then be valid."""
    names = [re.split("[.=]", text.lstrip("+~"))[0] for text in (axis, *typed)]
    return names[0] in names[1:]
