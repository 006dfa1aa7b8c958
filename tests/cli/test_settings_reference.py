"""The settings reference is complete, and docs/settings.md is up to date."""

import dataclasses

from conftest import ROOT
from mlp_tape.cli.settings_reference import meanings, reference
from mlp_tape.config.settings import Settings, flatten


def test_the_page_is_what_the_command_prints() -> None:
    stale = "stale: run python -m mlp_tape settings > docs/settings.md"
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), stale


def test_every_setting_has_a_row() -> None:
    assert [key for key, _ in flatten(Settings()) if f"\n| `{key}` |" not in reference()] == []


def test_every_setting_has_a_meaning_and_no_meaning_is_left_over() -> None:
    kinds = [
        Settings,
        *(type(value) for value in vars(Settings()).values() if dataclasses.is_dataclass(value)),
    ]
    assert len(kinds) == 10
    for kind in kinds:
        assert list(meanings(kind)) == [field.name for field in dataclasses.fields(kind)]
        assert all(meanings(kind).values())


def test_the_values_of_an_option_are_those_of_its_file() -> None:
    assert "| `optimizer=momentum` | `optimizer.name=momentum`, `optimizer.momentum=0.9` |" in reference()
    assert "| `dataset=mnist` | `dataset.offline=subset` |" in reference()
