"""Messages about what MLflow is missing."""

from mlp_tape.tracking import uri


def test_message_about_missing_rows_agrees_with_their_number() -> None:
    server = "http://127.0.0.1:5000"
    assert uri.incomplete_error(server, 1, "no answer").what == "1 row is left: no answer"
    assert uri.incomplete_error(server, 1234, "no answer").what == "1,234 rows are left: no answer"
    assert "this run, 1 row is left: why\n" in uri.missing_rows_message(server, 1, "why", "sync")
