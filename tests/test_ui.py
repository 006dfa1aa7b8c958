"""The printed link, in a real browser against a real `mlflow ui`."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def printed_link(
    run_py: Run, offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The link that a run printed, while `mlflow ui` answers."""
    if CHROMIUM is None:
        pytest.skip("install a browser to run this test: apt-get install chromium")
    directory = tmp_path_factory.mktemp("ui")
    data = os.environ.get("MLP_TAPE_MNIST")
    chosen = [f"dataset.path={Path(data).resolve()}"] if data else ["dataset=mnist_5k", "log_every=10"]
    done = run_py(directory, *chosen)
    assert done.returncode == 0, done.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mlflow_command = str(Path(sys.executable).with_name("mlflow"))
    server = subprocess.Popen(
        [mlflow_command, "ui", "--port", str(port)],
        cwd=directory,
        env=offline,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        link = re.search(r"http://127\.0\.0\.1:5000/\S+", done.stdout)
        assert link
        yield link[0].replace(":5000", f":{port}")
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def test_the_link_opens_the_run_among_the_training_runs_with_its_loss_curve(printed_link: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1080})
        page.goto(printed_link)
        page.get_by_role("tab", name="Model metrics", selected=True).wait_for(timeout=60_000)
        assert page.get_by_text("Model registry").is_visible()  # the half of the UI for training
        page.get_by_placeholder("Search metric charts").fill("^(train|test)/")
        charts = page.locator(".js-plotly-plot")
        playwright.expect(charts).to_have_count(3, timeout=60_000)
        points = [chart.evaluate("chart => chart.data[0].x.length") for chart in charts.all()]
        assert sorted(points) == [10, 10, 320]  # of many points, the UI draws 320
        folder = os.environ.get("MLP_TAPE_SCREENSHOTS")
        if folder:
            page.get_by_role("button", name="Close", exact=True).click()  # of the assistant beside the page
            page.wait_for_timeout(2000)
            page.screenshot(path=str(Path(folder) / "mlflow-run.png"))
        browser.close()
