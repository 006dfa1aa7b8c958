"""Where MLflow records a run: what is typed comes first, then MLflow's environment, then the default."""

import base64
import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from mlflow.entities import Run as MlflowEntity

from conftest import LIMIT, ROOT, SMALL, Run, Server, runs_in
from mlp_tape.config.settings import Settings, TrackingSettings, to_dict
from mlp_tape.errors import MlpTapeError, TrackingError
from mlp_tape.mlflow_backend import delivery
from mlp_tape.runs.destination import destination, of_job
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.run_record import RunRecord
from proxy import Proxy

SOURCE = {"mlflow.source.name": "pipeline.py", "mlflow.source.type": "PROJECT", "pipeline": "7"}
DIGITS = ["-P", "dataset=digits", "-P", "epochs=1", "-P", "model.hidden_sizes=[8]"]


def new_store(directory: Path) -> mlflow.MlflowClient:
    """Creates the default store of a directory, with an experiment `fraud` whose id is 1."""
    client = mlflow.MlflowClient(f"sqlite:///{directory}/mlflow.db")
    assert client.create_experiment("fraud") == "1"
    return client


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A client of a new store in the current directory."""
    monkeypatch.chdir(tmp_path)
    return new_store(tmp_path)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """A client of a store that several tests share."""
    return new_store(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def shared(shared_store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A client of a store in the current directory that several tests share."""
    monkeypatch.chdir(Path(shared_store.tracking_uri.removeprefix("sqlite:///")).parent)
    return shared_store


def foreign_run(client: mlflow.MlflowClient, **params: str) -> MlflowEntity:
    """Creates a run as another program does, such as `mlflow run`."""
    run = client.create_run("1", tags=SOURCE, run_name="theirs")
    for key, value in params.items():
        client.log_param(run.info.run_id, key, value)
    return run


def tracking(**settings: Any) -> Settings:
    return Settings(tracking=TrackingSettings(**settings))


@pytest.mark.parametrize(
    ("environment", "typed", "experiment", "line"),
    [
        ({}, {}, "mlp_tape", ""),
        ({"MLFLOW_EXPERIMENT_NAME": "", "MLFLOW_EXPERIMENT_ID": "", "MLFLOW_RUN_ID": ""}, {}, "mlp_tape", ""),
        ({"MLFLOW_EXPERIMENT_NAME": "new"}, {}, "new", "experiment new (MLFLOW_EXPERIMENT_NAME)"),
        ({"MLFLOW_EXPERIMENT_ID": "1"}, {}, "fraud", "experiment fraud (MLFLOW_EXPERIMENT_ID)"),
        ({"MLFLOW_EXPERIMENT_ID": "1", "MLFLOW_EXPERIMENT_NAME": "fraud"}, {}, "fraud", "experiment fraud"),
        ({"MLFLOW_EXPERIMENT_ID": "77"}, {"experiment": "mine"}, "mine", "experiment mine"),
        ({"MLFLOW_EXPERIMENT_NAME": "other"}, {"experiment": "mlp_tape"}, "mlp_tape", ""),
        ({"MLFLOW_RUN_NAME": "hello"}, {}, "mlp_tape", "experiment mlp_tape, run hello (MLFLOW_RUN_NAME)"),
        ({"MLFLOW_EXPERIMENT_ID": "77"}, {"enabled": False}, "mlp_tape", ""),
    ],
    ids=str,
)
def test_experiment_is_as_typed_else_of_the_environment_else_the_default(
    shared: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    typed: dict[str, Any],
    experiment: str,
    line: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = destination(tracking(**typed), None, [])
    assert found.tracking.experiment == experiment
    assert found.line.startswith(f"mlflow {shared.tracking_uri}, {line}" if line else "")
    assert bool(found.line) == bool(line)


@pytest.mark.parametrize(
    ("environment", "typed", "what"),
    [
        ({"MLFLOW_EXPERIMENT_ID": "77"}, {}, "has no such experiment"),
        ({"MLFLOW_EXPERIMENT_ID": "abc"}, {}, "has no such experiment"),
        ({"MLFLOW_EXPERIMENT_ID": "1", "MLFLOW_EXPERIMENT_NAME": "x"}, {}, "MLFLOW_EXPERIMENT_ID=1 is fraud"),
        ({"MLFLOW_RUN_ID": "abc"}, {}, "has no such run"),
        ({"MLFLOW_RUN_ID": "abc", "MLFLOW_TRACKING_URI": "sqlite:///no.db"}, {}, "no.db has no such run"),
        ({"MLFLOW_RUN_ID": "THEIRS"}, {"experiment": "mine"}, "but the run of MLFLOW_RUN_ID is in fraud"),
        ({"MLFLOW_RUN_ID": "DELETED"}, {}, "this run was deleted"),
        ({"MLFLOW_RUN_ID": "RECORDED"}, {}, "recorded already, in /nowhere/at/all"),
        ({"MLFLOW_RUN_NAME": "a\nb"}, {}, "expected a line of up to 250 characters"),
        (
            {"MLFLOW_REGISTRY_URI": "http://127.0.0.1:9"},
            {"register_as": "x"},
            "MLFLOW_REGISTRY_URI: ",
        ),
    ],
    ids=str,
)
def test_environment_that_cannot_be_followed_is_refused_and_creates_nothing(
    shared: mlflow.MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    typed: dict[str, Any],
    what: str,
) -> None:
    ids = {name: foreign_run(shared).info.run_id for name in ("THEIRS", "DELETED", "RECORDED")}
    shared.delete_run(ids["DELETED"])
    shared.set_tag(ids["RECORDED"], "directory", "/nowhere/at/all")
    shared.log_metric(ids["RECORDED"], "train/loss", 1.0)
    for name, value in environment.items():
        monkeypatch.setenv(name, ids.get(value, value))
    with pytest.raises(MlpTapeError) as error:
        destination(tracking(**typed), None, [])
    assert what in error.value.what
    assert error.value.hint
    assert error.value.exit_code == 2
    assert {path.name for path in Path().iterdir()} <= {"mlflow.db", "mlruns"}
    assert [each.name for each in shared.search_experiments()] == ["fraud", "Default"]


def test_params_of_an_adopted_run_may_have_another_spelling_but_not_another_value(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"lr": "1e-2", "sizes": "'[512,256]'", "clip_norm": "null", "dataset.path": "x.npz", "own": "1"}
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign_run(client, **there).info.run_id)
    found = destination(Settings(), None, [])
    assert (found.tracking.experiment, found.name) == ("fraud", "theirs")
    here = {"lr": "0.01", "sizes": "[512, 256]", "clip_norm": "None", "dataset.path": "/x.npz"}
    record = RunRecord(Path(), params=here)
    found.prepare(record, Settings())
    assert (record.adopts, record.name) == (found.adopts, "theirs")
    found.prepare(record, Settings(run_name="ours"))
    assert record.name == "ours"
    with pytest.raises(MlpTapeError, match=r"lr=0\.02, but the run of MLFLOW_RUN_ID has the param lr=1e-2"):
        found.prepare(RunRecord(Path(), params={"lr": "0.02"}), Settings())


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_resumed_run_continues_where_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = to_dict(tracking(experiment="recorded"))
    past = RunRecord(tmp_path, kind, uri=f"sqlite:///{tmp_path}/first.db", settings=settings)
    past.delivery.run_id = "1a"
    (tmp_path / "first.db").touch()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////other.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "1a")
    expected = TrackingSettings(experiment="recorded", uri=f"sqlite:///{tmp_path}/first.db")
    recorded = tracking(uri=past.store) if kind == "run" else Settings()  # as `resume.settings` returns them
    assert destination(recorded, past, []).tracking == expected
    assert of_job(TrackingSettings(), past) == expected
    assert of_job(TrackingSettings(experiment="typed"), past).experiment == "typed"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/first.db")
    assert of_job(TrackingSettings(), past).uri is None  # as recorded in earlier versions
    monkeypatch.setenv("MLFLOW_RUN_ID", "2b")
    with pytest.raises(MlpTapeError, match=f"MLFLOW_RUN_ID=2b, but the {kind} to resume is 1a"):
        destination(Settings(), past, [])


def delivered(client: mlflow.MlflowClient, directory: Path, record: RunRecord) -> MlflowEntity:
    """Delivers the record of a run that was started or resumed, and returns it as MLflow has it."""
    record.mark_started()
    record.save()
    for _ in delivery.deliver(directory, client.tracking_uri):
        pass
    record.__dict__.pop("delivery", None)  # to be read anew
    return client.get_run(record.run_id)


def test_changed_name_and_tags_are_sent_once_so_that_changes_in_the_ui_are_kept(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run = foreign_run(client, lr="0.001")
    settings = to_dict(Settings(tags={"team": "x", "ticket": "42"}))
    record = RunRecord(tmp_path, name="ours", settings=settings, token="t", uri=client.tracking_uri)
    record.adopts, record.source = run.info.run_id, {"mlflow.source.name": "run.py", "git.dirty": "true"}
    found = delivered(client, tmp_path, record)
    assert (found.info.run_id, found.info.run_name, found.info.status) == (run.info.run_id, "ours", "RUNNING")
    expected = SOURCE | {"team": "x", "ticket": "42", "git.dirty": "true", "token": "t"}
    assert found.data.tags.items() >= expected.items()
    assert [each.name for each in client.search_experiments()] == ["fraud", "Default"]

    client.set_tag(run.info.run_id, "team", "changed in the UI")
    client.update_run(run.info.run_id, name="changed in the UI")
    record.settings["tags"]["ticket"] = "43"
    found = delivered(client, tmp_path, record)
    assert (found.data.tags["team"], found.data.tags["ticket"]) == ("changed in the UI", "43")
    assert found.info.run_name == "changed in the UI"
    record.name = record.settings["run_name"] = "renamed"
    assert delivered(client, tmp_path, record).info.run_name == "renamed"
    (tmp_path / "delivery.json").unlink()
    assert delivered(client, tmp_path, record).info.run_id == run.info.run_id


def test_run_of_an_earlier_version_keeps_the_name_it_was_given_in_the_ui(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run = foreign_run(client)
    client.update_run(run.info.run_id, name="changed in the UI")
    record = RunRecord(tmp_path, name="theirs", settings={"tracking": {"experiment": "fraud"}})
    DeliveryRecord(run_id=run.info.run_id, name="theirs").save(tmp_path)
    assert delivered(client, tmp_path, record).info.run_name == "changed in the UI"


def test_deleted_run_is_not_described(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run = foreign_run(client)
    client.delete_run(run.info.run_id)
    record = RunRecord(tmp_path, name="x", settings=to_dict(Settings()), uri=client.tracking_uri)
    record.adopts = run.info.run_id
    with pytest.raises(TrackingError, match="was deleted"):
        delivered(client, tmp_path, record)


@pytest.mark.long
def test_run_is_recorded_in_the_run_of_the_environment(
    run_py: Run, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run_id = foreign_run(client, lr="1e-2").info.run_id
    environment = {"MLFLOW_RUN_ID": run_id, "MLFLOW_EXPERIMENT_NAME": "other"}
    described = ["run_name=first", "tags={team: x, ticket: 42}", "note=**Why** I did this."]
    done = run_py(tmp_path, *SMALL, "lr=0.01", *described, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    line = f"mlflow {client.tracking_uri}, experiment fraud, run first (MLFLOW_RUN_ID)"
    assert done.stdout.splitlines()[0] == line
    (run,) = client.search_runs(["1"], "tags.team = 'x' AND tags.ticket = '42'")
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "first")
    assert run.data.tags.items() >= SOURCE.items()
    assert run.data.tags["mlflow.note.content"].count("**Why** I did this.\n\nA multilayer perceptron") == 1
    assert (run.data.params["lr"], run.data.params["epochs"]) == ("1e-2", "1")
    assert len(client.get_metric_history(run_id, "train/loss")) == 12
    assert {each.path for each in client.list_artifacts(run_id)} >= {"config.yaml", "environment.txt"}
    assert client.get_experiment_by_name("mlp_tape") is None

    again = run_py(tmp_path, *SMALL, "lr=0.01", **environment)
    assert again.returncode == 2
    assert f"type python run.py resume={run_id}, or unset MLFLOW_RUN_ID" in again.stderr
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


@pytest.mark.long
def test_resumed_run_is_renamed_and_described_anew_under_another_environment(
    run_py: Run, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    assert run_py(tmp_path, *SMALL, "tags.team=x", "tags.ticket=42", "note=cost ${5}\\$").returncode == 2
    done = run_py(tmp_path, *SMALL, "tags.team=x", "tags.ticket=42", r"note='cost \${5}'")
    assert done.returncode == 0, done.stderr
    (run,) = runs_in(client.tracking_uri)
    client.set_tag(run.info.run_id, "team", "changed in the UI")
    changes = ["run_name=second", "tags.ticket=43", "tags.new=1"]
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/other.db",
        "MLFLOW_EXPERIMENT_NAME": "other",
        "MLFLOW_RUN_NAME": "other",
        "MLFLOW_RUN_ID": run.info.run_id,
    }
    done = run_py(tmp_path, f"resume={run.info.run_id}", "epochs=2", *changes, **environment)
    assert done.returncode == 0, done.stderr
    (run,) = runs_in(client.tracking_uri)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "second")
    assert [run.data.tags[key] for key in ("team", "ticket", "new")] == ["changed in the UI", "43", "1"]
    assert "cost ${5}" in run.data.tags["mlflow.note.content"]
    assert not (tmp_path / "other.db").exists()


@pytest.mark.long
def test_sweep_is_recorded_in_the_run_of_the_environment_and_its_jobs_below_it(
    run_py: Run, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run_id = foreign_run(client, lr="0.1,0.2").info.run_id
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    described = ["tags.team=x", "note=Why."]
    environment = {"MLFLOW_RUN_ID": run_id, "MLFLOW_RUN_NAME": "first"}
    done = run_py(tmp_path, "-m", *SMALL, "lr=0.1,0.2", *joblib, *described, **environment)
    assert done.returncode == 0, done.stderr
    other = {"MLFLOW_EXPERIMENT_NAME": "other", "MLFLOW_RUN_NAME": "other"}
    other["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/other.db"
    more = run_py(tmp_path, "-m", "sweep.resume=last", "lr=0.1,0.2,0.3", "tags.more=1", **other)
    assert more.returncode == 0, more.stderr
    assert not (tmp_path / "other.db").exists()
    jobs = {run.info.run_name: run for run in client.search_runs(["1"])}
    parent = jobs.pop("first")
    assert parent.info.run_id == run_id
    assert parent.data.tags["mlflow.note.content"].count("Why.\n\n**Best:**") == 1
    assert (parent.data.tags["team"], parent.data.tags["more"]) == ("x", "1")
    assert sorted(jobs) == ["lr=0.1", "lr=0.2", "lr=0.3"]
    for run in [parent, *jobs.values()]:
        assert (run.info.status, run.data.tags["team"]) == ("FINISHED", "x")
        assert not {"run_name", "tags.team", "note"} & set(run.data.params)
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs.values()} == {run_id}
    refused = run_py(tmp_path, "-m", "sweep.resume=last", MLFLOW_RUN_ID="1a")
    assert f"MLFLOW_RUN_ID=1a, but the sweep to resume is {run_id}" in refused.stderr
    assert refused.returncode == 2


@pytest.mark.long
def test_registry_artifact_root_and_logging_of_the_environment(
    run_py: Run, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    pytest.importorskip("psutil", reason="pip install -e '.[system]' to run this test")
    registry = f"sqlite:///{tmp_path}/registry.db"
    environment = {
        "MLFLOW_REGISTRY_URI": registry,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(tmp_path / "elsewhere"),
        "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "1",
    }
    done = run_py(tmp_path, *SMALL, "report=full", "tracking.register_as=mine", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs_in(client.tracking_uri)
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith(str(tmp_path / "elsewhere"))
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 12
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert not client.search_model_versions()
    (version,) = mlflow.MlflowClient(client.tracking_uri, registry).search_model_versions()
    assert (version.name, version.run_id) == ("mine", run.info.run_id)


def mlflow_run(directory: Path, environment: dict[str, str], *arguments: str) -> str:
    """Runs `mlflow run` of this checkout in a directory, with this Python, and returns its output."""
    python = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *arguments],
        cwd=directory,
        env=environment | python,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("has_server", [False, True])
def test_mlflow_run_makes_one_run(
    offline: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path, has_server: bool
) -> None:
    uri = request.getfixturevalue("server").url if has_server else f"sqlite:///{tmp_path}/mlflow.db"
    environment = offline | ({"MLFLOW_TRACKING_URI": uri} if has_server else {})
    place = ["-P", f"hydra.run.dir={tmp_path}/run", "-P", "tags.team=x", "-P", "note=why, indeed"]
    shown = mlflow_run(tmp_path, environment, "-P", "lr=1e-2", "-P", "experiment=adam", *DIGITS, *place[:4])
    assert f"mlflow {uri} (MLFLOW_TRACKING_URI), experiment Default, run " in shown
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert (tags["mlflow.source.type"], tags["mlflow.project.entryPoint"]) == ("PROJECT", "main")
    assert (tags["team"], run.data.params["lr"], run.data.params["optimizer.name"]) == ("x", "1e-2", "adam")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["lr"] == 0.01
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 12
    assert {each.path for each in client.list_artifacts(run.info.run_id)} >= {"config.yaml", "plots"}


@pytest.mark.long
def test_mlflow_run_makes_one_sweep(offline: dict[str, str], tmp_path: Path) -> None:
    place = ["-P", f"hydra.sweep.dir={tmp_path}/sweep", "-P", "report=none"]
    mlflow_run(
        tmp_path, offline, "-e", "sweep", "--experiment-name", "grid", "-P", "lr=0.1,0.2", *DIGITS, *place
    )
    runs = runs_in(f"sqlite:///{tmp_path}/mlflow.db", "grid")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.data.tags["mlflow.project.entryPoint"] for run in parents] == ["sweep"]
    assert {run.info.run_name for run in runs} - {parents[0].info.run_name} == {"lr=0.1", "lr=0.2"}
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.long
def test_tags_that_the_program_writes_are_reserved(run_py: Run, tmp_path: Path) -> None:
    from mlp_tape.config import validation

    done = run_py(tmp_path, "-m", *SMALL, "lr=0.1,1e30", "seed=0,1", "loss=mse")
    assert done.returncode == 1, done.stderr
    written = {tag for run in runs_in(f"sqlite:///{tmp_path}/mlflow.db") for tag in run.data.tags}
    assert {"reason", "best.setting"} <= written
    for tag in written:
        with pytest.raises(MlpTapeError, match="MLflow or this program writes"):
            dict(validation._tags({tag: "x"}))


def certificate(directory: Path) -> Path:
    """Creates a file with a key and a certificate for 127.0.0.1 that is signed with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + day)
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    file = directory / "both.pem"
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key.private_bytes(*plain) + signed.public_bytes(Encoding.PEM))
    return file


@pytest.mark.long
def test_server_with_a_password_a_token_or_certificates_is_accessed_as_the_environment_says(
    run_py: Run, server: Server, tmp_path: Path
) -> None:
    file = certificate(tmp_path)
    tls, mutual = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    for context in (tls, mutual):
        context.load_cert_chain(file)
    mutual.verify_mode = ssl.CERT_REQUIRED
    mutual.load_verify_locations(file)
    basic = base64.b64encode(b"me:secret").decode()
    trusted = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(file)}
    cases: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"authorization": "Bearer t0ken"}, {"MLFLOW_TRACKING_TOKEN": "t0ken"}, "MLFLOW_TRACKING_TOKEN"),
        (
            {"authorization": f"Basic {basic}"},
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"},
            "MLFLOW_TRACKING_PASSWORD",
        ),
        ({"tls": tls}, trusted, "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        ({"tls": tls}, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}, ""),
        (
            {"tls": mutual},
            trusted | {"MLFLOW_TRACKING_CLIENT_CERT_PATH": str(file)},
            "MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
    ]
    for number, (given, environment, advice) in enumerate(cases):
        with Proxy(server.url, **given) as proxy:
            uri = {"MLFLOW_TRACKING_URI": proxy.url}
            if advice:
                refused = run_py(tmp_path, *SMALL, **uri)
                assert refused.returncode == 2
                assert advice in refused.stderr.splitlines()[1]
            done = run_py(tmp_path, *SMALL, f"run_name=run {number}", **uri, **environment)
            assert done.returncode == 0, done.stderr
            assert "secret" not in done.stdout
    runs = runs_in(server.url)
    assert {run.info.run_name for run in runs} == {f"run {number}" for number in range(len(cases))}
    assert {run.info.status for run in runs} == {"FINISHED"}
