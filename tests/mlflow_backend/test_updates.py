"""Whatever MLflow shows of a run is brought up to date when the run is resumed."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from conftest import Run, ended_run, mlp_tape, runs_in
from mlp_tape.mlflow_backend import delivery, history
from mlp_tape.storage import run_record

NOTE = "mlflow.note.content"
SMALL = ["dataset=digits", "model.hidden_sizes=[8]"]


def test_changed_params_stand_in_tags_and_nothing_reads_the_old_ones(tmp_path: Path) -> None:
    record = ended_run(tmp_path)
    record.params = {"epochs": "2", "lr": "0.1", "tracking.patience": "30", "layer_sizes": "[4, 2]"}
    record.name = "epochs=2"
    record.mark_started()
    record.mark_ended("KILLED", "SIGINT")
    delivery.deliver_all(tmp_path, record.uri)
    for epochs in ("3", "4"):
        record = run_record.read(tmp_path)
        record.params |= {"epochs": epochs, "tracking.patience": "5"}
        record.name = f"epochs={epochs}"
        record.mark_started()
        record.mark_ended("KILLED", "SIGINT")
        delivery.deliver_all(tmp_path, record.uri)
        (found,) = runs_in(record.uri)
        assert found.data.params["epochs"] == "2", "MLflow does not allow to change it"
        assert found.data.tags["epochs"] == epochs
        assert {"lr", "tracking.patience"}.isdisjoint(found.data.tags)
        assert found.info.run_name == f"epochs={epochs}"
        (past,) = history.pasts(record.uri, found.info.run_id, [])
        assert (past.params["epochs"], past.params["lr"]) == (epochs, "0.1")


@pytest.mark.long
def test_run_that_is_trained_further_has_a_new_version_name_and_page(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    assert run_py(tmp_path, *SMALL, "epochs=1", "tracking.register_as=digits").returncode == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    (run,) = runs_in(uri)
    client.set_tag(run.info.run_id, NOTE, f"Mine.\n\n{run.data.tags[NOTE]}")
    client.set_registered_model_alias("digits", "champion", "1")
    assert run_py(tmp_path, "resume=last", "epochs=3").returncode == 0
    (run,) = runs_in(uri)
    assert (run.info.run_name, run.data.tags["epochs"]) == (f"{' '.join(SMALL)} epochs=3", "3")
    assert run.data.tags[NOTE].startswith("Mine.\n")
    assert "3 epochs in batches" in run.data.tags[NOTE]
    assert "1 epoch in batches" not in run.data.tags[NOTE]
    versions = {int(each.version): each for each in client.search_model_versions("name = 'digits'")}
    assert sorted(versions) == [1, 2]
    assert int(client.get_model_version_by_alias("digits", "champion").version) == 1, "it is a person's"
    with np.load(next(tmp_path.glob("outputs/*/*/weights.npz"))) as weights:
        model = mlflow.pyfunc.load_model(versions[2].source).unwrap_python_model()
        assert all(np.array_equal(model.params[name], weights[name]) for name in weights)
    compared = mlp_tape(tmp_path, offline, "compare", run.info.run_id, run.info.run_id, "--uri", uri)
    assert compared.returncode == 0, compared.stderr


@pytest.mark.long
def test_sweep_that_is_extended_has_a_new_name_and_keeps_what_a_person_wrote(
    run_py: Run, tmp_path: Path
) -> None:
    assert run_py(tmp_path, "-m", *SMALL, "epochs=1", "lr=0.1,0.2").returncode == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    (sweep,) = (run for run in runs_in(uri) if run.info.run_name.startswith("sweep"))
    client.set_tag(sweep.info.run_id, NOTE, f"{sweep.data.tags[NOTE]}\n\nMine.")
    assert run_py(tmp_path, "-m", "sweep.resume=last", "lr=0.1,0.2,0.4").returncode == 0
    sweep = client.get_run(sweep.info.run_id)
    assert sweep.info.run_name == "sweep lr=0.1,0.2,0.4"
    assert (sweep.data.params["lr"], sweep.data.tags["lr"]) == ("0.1,0.2", "0.1,0.2,0.4")
    assert sweep.data.tags[NOTE].endswith("Mine.")
    assert "0.4" in sweep.data.tags[NOTE]
    assert len(runs_in(uri)) == 4
