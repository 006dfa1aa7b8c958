"""The console prints to any terminal, and its progress bars count correctly."""

import io
import sys
from pathlib import Path

import pytest

from mlp_tape.system.console import Console


def test_text_that_the_terminal_cannot_encode_does_not_end_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    Console().line("0.87 ± 0.01")
    screen.flush()
    assert screen.buffer.getvalue() == b"0.87 \\xb1 0.01\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "text"), [(1, "1 row remaining"), (1200, "1,200 rows remaining")])
def test_number_of_remaining_rows_agrees_with_its_noun(
    capsys: pytest.CaptureFixture[str], rows: int, text: str
) -> None:
    with Console().waiting("sending") as show:
        show(rows)
    assert capsys.readouterr().out == f"sending: {text}\n"


def test_warning_of_another_thread_after_the_end_is_shown_and_raises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console() as console:
        console.copy_to(tmp_path / "console.log")
        console.line("a surrogate: \udcf6")
    console.warn("too late for the file")
    assert "WARNING  too late for the file" in capsys.readouterr().err
    assert (tmp_path / "console.log").read_text() == "a surrogate: \\udcf6\n"
