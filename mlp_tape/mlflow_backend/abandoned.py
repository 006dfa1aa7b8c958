"""Runs that were left RUNNING by processes that no longer exist, and the heartbeat by which that is known."""

import shlex
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import mlflow
from mlflow.entities import Run

from mlp_tape.mlflow_backend.store import ask, end
from mlp_tape.storage import liveness, run_record
from mlp_tape.storage.liveness import Owner
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import program

TWIN = "created twice; the run of this directory is "  # reason of a duplicate run


def close_dead(uri: str, experiment: str) -> Iterator[str]:
    """Closes runs that were left RUNNING by processes that no longer exist; yields a line for each.

    The status is the one in the directory of the run, or KILLED. Duplicates of runs, which earlier versions
    could create while the store was busy, are closed too.
    """

    def running(client: mlflow.MlflowClient) -> list[Run]:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return []
        return list(
            client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'", max_results=10_000)
        )

    for run in ask(uri, running):
        tags = run.data.tags
        if "directory" not in tags or "pid" not in tags:  # a run of another program
            continue
        directory = Path(tags["directory"])
        if not Owner.of_tags(tags).is_alive(directory):
            yield from _close_dead(uri, run, directory)


def beat(client: mlflow.MlflowClient, run_id: str) -> None:
    """Renews the heartbeat of a run, and its status, in case that another machine has closed it."""
    client.set_tag(run_id, "heartbeat", liveness.heartbeat(time.time()))
    if client.get_run(run_id).info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")


def _close_dead(uri: str, run: Run, directory: Path) -> Iterator[str]:
    left, run_id = run_record.read_abandoned(directory), run.info.run_id
    told = f"{run_id} ({run.info.run_name}) was left RUNNING by a process that no longer exists"
    if not left.run_id and run.data.tags.get("heartbeat"):
        last = run.data.tags["heartbeat"]
        left.reason = f"no heartbeat since {last}"
        left.ended = datetime.fromisoformat(last).timestamp()
        told += f" (no heartbeat since {last}) on {run.data.tags.get('host')}"
    if left.run_id and left.run_id != run_id:
        reason = TWIN + left.run_id
        twin = RunRecord(directory, status="KILLED", reason=reason, ended=left.ended)
        ask(uri, lambda client: end(client, run, twin, {}))
        yield f"{run_id} ({run.info.run_name}) was {reason}"
        return
    ask(uri, lambda client: end(client, run, left, dict(left.delivery.written)))
    if left.status == "KILLED" and directory.is_dir() and left.run_id:
        yield f"{told}; to resume: {left.resume}"
    elif not left.sent and left.run_id:
        if not left.owner.exists_here():  # else it is the one that sends the rest
            yield f"{told}; to send the rest of it: {program.tool()} sync {shlex.quote(str(directory))}"
    else:
        yield told
