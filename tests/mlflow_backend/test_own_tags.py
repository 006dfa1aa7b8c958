"""What a person writes in MLflow's UI is kept; what this program wrote is brought up to date."""

from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Run

from mlp_tape.mlflow_backend import own_tags, store
from mlp_tape.mlflow_backend.own_tags import LENGTH, described

NOTE, NAME = "mlflow.note.content", "mlflow.runName"


@pytest.fixture
def client(tmp_path: Path) -> mlflow.MlflowClient:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    return store.ask(uri, lambda client: client)


def created(client: mlflow.MlflowClient, name: str = "lr=0.1") -> Run:
    return client.create_run("0", run_name=name)


def current(client: mlflow.MlflowClient, run: Run) -> Run:
    return client.get_run(run.info.run_id)


def test_own_tags_and_name_are_updated(client: mlflow.MlflowClient) -> None:
    run = created(client)
    written = dict(run.data.tags)
    own_tags.update(client, run, {"command": "a", NOTE: "first"}, written, "lr=0.1")
    own_tags.update(client, current(client, run), {"command": "b", NOTE: "second"}, written, "epochs=2")
    found = current(client, run)
    assert (found.info.run_name, found.data.tags["command"]) == ("epochs=2", "b")
    assert "second" in found.data.tags[NOTE]
    assert "first" not in found.data.tags[NOTE]


def test_tag_name_and_description_of_a_person_are_kept(client: mlflow.MlflowClient) -> None:
    run = created(client)
    written = dict(run.data.tags)
    own_tags.update(client, run, {"command": "a", "best": "3", NOTE: "first"}, written, "lr=0.1")
    client.set_tag(run.info.run_id, "command", "mine")
    client.delete_tag(run.info.run_id, "best")
    client.update_run(run.info.run_id, name="the good one")
    client.set_tag(run.info.run_id, NOTE, "What I think of it.")
    for text in ("second", "third"):
        tags = {"command": "b", "best": "4", NOTE: text}
        own_tags.update(client, current(client, run), tags, written, "epochs=2", {"pid": "7"})
        found = current(client, run)
        assert found.info.run_name == "the good one"
        assert found.data.tags["command"] == "mine"
        assert "best" not in found.data.tags, "a tag that somebody deleted stays deleted"
        assert found.data.tags["pid"] == "7"
        assert found.data.tags[NOTE].startswith("What I think of it.\n")
        assert text in found.data.tags[NOTE]
    assert "second" not in found.data.tags[NOTE]


def test_tags_of_an_earlier_version_are_updated(client: mlflow.MlflowClient) -> None:
    run = created(client)
    client.set_tag(run.info.run_id, "command", "a")
    client.set_tag(run.info.run_id, NOTE, "A multilayer perceptron of the earlier version: python run.py -m")
    own_tags.update(client, current(client, run), {"command": "b", NOTE: "now"}, {}, "epochs=2")
    found = current(client, run)
    assert (found.data.tags["command"], found.info.run_name) == ("b", "lr=0.1")
    assert "earlier" not in found.data.tags[NOTE]


def test_text_before_and_after_our_part_is_kept() -> None:
    there = f"before\n\n{described('', 'first')}\n\nafter"
    now = described(there, "second")
    assert now == f"before\n\n{described('', 'second')}\n\nafter"


def test_what_is_edited_in_our_part_is_kept() -> None:
    edited = described("", "accuracy 0.9").replace("0.9", "0.9, which surprises me")
    now = described(edited, "accuracy 0.95")
    assert "which surprises me" in now
    assert described(now, "accuracy 0.97").count("surprises") == 1
    assert "0.95" not in described(now, "accuracy 0.97")


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_nothing_of_a_person_is_lost(theirs: str, ours: str, later: str) -> None:
    theirs = theirs.replace("mlp_tape", "")
    there = described(theirs, ours)
    assert there.startswith(theirs.rstrip())
    assert described(there, ours) == there
    assert described(there, later) == described(theirs, later)


def test_long_descriptions_are_cut_at_our_end() -> None:
    long = "x" * 2 * LENGTH
    found = described("mine", long)
    assert found.startswith("mine\n")
    assert len(found) == LENGTH
    assert described(found, "now") == described("mine", "now")
    full = "y" * LENGTH
    assert described(full, "ours") == full, "there is no room"
