"""System metrics are recorded if requested, also during outages and when a run is stopped."""

import signal
import sys
from pathlib import Path

import mlflow
import pytest
from omegaconf import OmegaConf
from test_outage import ARGUMENTS

from conftest import LIMIT, SMALL, Run, Server, start_program, wait_for_exit, wait_until
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, to_dict
from mlp_tape.errors import ConfigError
from mlp_tape.storage import journal, run_record

MEASURED = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2"}
LOAD = "system/cpu_utilization_percentage"


def samples(directory: Path, key: str) -> list[journal.Row]:
    return list(journal.rows(directory, key))


@pytest.mark.long
@pytest.mark.concurrency
def test_outage_and_stop_lose_no_sample(
    run_py: Run, server: Server, offline: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("psutil", reason="pip install -e '.[system]' to run this test")
    arguments = [*ARGUMENTS, f"tracking.uri={server.url}", f"tracking.patience={LIMIT}"]
    program = start_program(tmp_path, offline | MEASURED, "epoch 5 ", *arguments, "epochs=1000000")
    (directory,) = tmp_path.glob("outputs/*/*")
    before = len(samples(directory, LOAD))
    server.stop()
    wait_until("samples while the server is away", lambda: len(samples(directory, LOAD)) >= before + 5)
    server.start()
    program.send_signal(signal.SIGINT)
    shown = wait_for_exit(program)
    assert program.returncode == 130, shown
    trained = samples(directory, "train/loss")[-1].step
    first = samples(directory, LOAD)

    epochs = trained // 42 + 100  # the rest is sent now
    done = run_py(tmp_path, "resume=last", f"epochs={epochs}", **MEASURED)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = samples(directory, "system/")
    assert len(samples(directory, LOAD)) > len(first)
    client, run_id = mlflow.MlflowClient(server.url), run_record.read(directory).run_id
    for key in {row.key for row in rows}:
        history = [(row.step, row.value, row.timestamp) for row in client.get_metric_history(run_id, key)]
        assert history == [(row.step, row.value, row.timestamp) for row in rows if row.key == key]
        assert [step for step, _, _ in history] == list(range(len(history)))
    assert any(0 < row.value <= 100 for row in samples(directory, LOAD))


@pytest.mark.long
def test_short_run_has_a_sample_if_requested(run_py: Run, tmp_path: Path) -> None:
    pytest.importorskip("psutil", reason="pip install -e '.[system]' to run this test")
    for setting, name in (("true", "asked"), ("false", "not")):
        arguments = [f"tracking.system_metrics={setting}", f"hydra.run.dir={name}"]
        done = run_py(tmp_path, *SMALL, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert samples(tmp_path / "asked", LOAD)
    assert not samples(tmp_path / "not", "system/")


def test_missing_psutil_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    settings = OmegaConf.create(to_dict(Settings()))
    assert validation.parse(settings) == Settings()
    settings.tracking.system_metrics = True
    with pytest.raises(ConfigError, match="requires psutil, which is not installed") as told:
        validation.parse(settings)
    assert "'.[system]'" in told.value.hint
