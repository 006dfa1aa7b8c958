"""The settings reference is complete, and docs/settings.md is up to date."""

from conftest import ROOT
from mlp_tape.cli.settings_reference import reference
from mlp_tape.config.settings import Settings, flatten


def test_the_page_is_what_the_command_prints() -> None:
    stale = "stale: run python -m mlp_tape settings > docs/settings.md"
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), stale


def test_every_setting_has_a_row() -> None:
    assert [key for key, _ in flatten(Settings()) if f"\n| `{key}` |" not in reference()] == []


def test_every_setting_and_every_option_has_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row[0] for row in rows if not row[1].strip() or not row[-1].strip(" |")] == []


def test_the_options_of_a_group_have_their_meaning_and_their_values() -> None:
    text = reference()
    assert "| `optimizer=nesterov` | `v <- m * v + lr * g;" in text
    assert " | `optimizer.momentum=0.9` |" in text
    assert " | `dataset.offline=subset` |" in text
    assert "| `schedule=warmup` | `lr`, after it has risen linearly from 0" in text
    assert "Used by `rmsprop`, `adam` and `adamw`." in text
    assert "the value of `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`, if it is set" in text
