"""The printed links, opened in a real browser with a real `mlflow ui`."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import LIMIT, WITHOUT_JOBS, Run, responds, wait_until

pytestmark = pytest.mark.long
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MILLISECONDS = 1000 * LIMIT
DATA = os.environ.get("MLP_TAPE_MNIST")
MNIST = [f"dataset.path={Path(DATA).resolve()}"] if DATA else ["dataset=mnist_5k", "log_every=10"]

# Whether the page shows a loaded image that is 800 pixels wide.
IMAGE_LOADED = """[...document.images].some(
    image => image.naturalWidth == 800 && image.getBoundingClientRect().width > 300)"""

# Whether every chart of the page has data points.
CHARTS_DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].every(chart => chart.data?.[0]?.x?.length)"


@pytest.fixture(scope="module")
def ui(
    run_py: Run, offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., list[str]]]:
    """A function that runs the program and returns the printed links, while `mlflow ui` is running."""
    if CHROMIUM is None:
        pytest.skip("install a browser to run this test: apt-get install chromium")
    directory = tmp_path_factory.mktemp("ui")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(*arguments: str) -> list[str]:
        done = run_py(directory, *arguments)
        assert done.returncode == 0, done.stderr
        return [
            link.replace(":5000", f":{port}")
            for link in re.findall(r"http://127\.0\.0\.1:5000/\S+", done.stdout)
        ]

    run("dataset=digits", "epochs=1", "tracking.experiment=other")  # creates the database
    log = directory / "ui.log"
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("mlflow")), "ui", "--port", str(port)],
        cwd=directory,
        env=offline | WITHOUT_JOBS,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until("the UI", lambda: responds(f"http://127.0.0.1:{port}/health", server, log))
        yield run
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT)


@pytest.fixture
def page() -> Iterator[Any]:
    """A page in a real browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1080})
        page.set_default_timeout(MILLISECONDS)
        playwright.expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


def save_screenshot(page: Any, name: str) -> None:
    """Saves a screenshot for the documentation if MLP_TAPE_SCREENSHOTS is set."""
    folder = os.environ.get("MLP_TAPE_SCREENSHOTS")
    if folder:
        assistant = page.get_by_role("button", name="Close", exact=True)  # covers part of the page
        if assistant.count():
            assistant.first.click()
        page.wait_for_timeout(2000)
        page.screenshot(path=str(Path(folder) / name))


def test_link_opens_the_run_with_its_loss_curve(ui: Callable[..., list[str]], page: Any) -> None:
    from playwright.sync_api import expect

    (link,) = ui(*MNIST)
    page.goto(link)
    page.get_by_role("tab", name="Model metrics", selected=True).wait_for()
    expect(page.get_by_text("Model registry")).to_be_visible()  # the section of the UI for model training
    page.get_by_placeholder("Search metric charts").fill("^(train/loss|test/)")
    charts = page.locator(".js-plotly-plot")
    expect(charts).to_have_count(3)
    page.wait_for_function(CHARTS_DRAWN)
    points = [chart.evaluate("chart => chart.data[0].x.length") for chart in charts.all()]
    assert sorted(points) == [10, 10, 320]  # the UI draws at most 320 points
    save_screenshot(page, "mlflow-run.png")


def test_run_page_shows_the_description_and_loads_the_plots(ui: Callable[..., list[str]], page: Any) -> None:
    from playwright.sync_api import expect

    (link,) = ui(*MNIST, "epochs=3", "lr=0.5", "tracking.experiment=plots")
    page.goto(link.replace("/model-metrics", ""))
    expect(page.get_by_text("784 → 256 → 128 → 10").first).to_be_visible()
    more = page.get_by_text("Show more", exact=True)
    if more.count():  # expands the description for the screenshot
        more.first.click()
    expect(page.get_by_text("To use the model")).to_be_visible()
    save_screenshot(page, "mlflow-page.png")
    for name in ("worst_mistakes", "first_layer", "histograms", "layers", "learning_curve"):
        page.goto(link.replace("/model-metrics", f"/artifacts/plots/{name}.png"))
        page.wait_for_function(IMAGE_LOADED)
    save_screenshot(page, "mlflow-plot.png")


def test_model_page_shows_data_set_version_metrics_and_params(
    ui: Callable[..., list[str]], page: Any
) -> None:
    from playwright.sync_api import expect

    (link,) = ui("dataset=digits", "epochs=1", "tracking.experiment=models", "tracking.register_as=shown")
    page.goto(re.sub(r"/runs/.*", "/models", link))  # the list of the experiment's models
    page.get_by_role("link", name="model", exact=True).first.click()
    expect(page.get_by_text("Datasets used")).to_be_visible()
    expect(page.get_by_text(re.compile(r"digits \(#")).first).to_be_visible()
    expect(page.get_by_text("shown v1").first).to_be_visible()
    expect(page.get_by_text("Metrics (2)")).to_be_visible()
    expect(page.get_by_role("cell", name="layer_sizes", exact=True)).to_be_visible()
    save_screenshot(page, "mlflow-model.png")


def test_jobs_are_nested_below_their_sweep_and_can_be_compared(
    ui: Callable[..., list[str]], page: Any
) -> None:
    from playwright.sync_api import expect

    (link,) = ui("-m", "lr=0.1,0.3,0.03", "dataset=digits", "epochs=3", "tracking.experiment=sweeps")
    page.goto(link)
    expect(page.get_by_role("heading", name="sweep lr=0.1,0.3,0.03")).to_be_visible()
    expect(page.get_by_role("cell", name="FINISHED", exact=True)).to_have_count(3)  # the table of the jobs
    save_screenshot(page, "mlflow-sweep-page.png")
    page.goto(re.sub(r"/runs/\w+", "", link))  # the list of the experiment's runs
    parent = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="sweep lr=0.1,0.3,0.03"))
    parent.get_by_role("button").first.click()  # expands the nested runs
    for name in ("lr=0.1", "lr=0.3", "lr=0.03"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    save_screenshot(page, "mlflow-sweep.png")
    run_ids = [
        str(page.get_by_role("link", name=name, exact=True).get_attribute("href")).rpartition("/")[2]
        for name in ("lr=0.1", "lr=0.3")
    ]
    experiment = re.search(r"/experiments/(\d+)", link)
    assert experiment
    base_url = link.partition("#")[0]
    runs, experiments = json.dumps(run_ids), json.dumps([experiment[1]])
    page.goto(f"{base_url}#/compare-runs?runs={runs}&experiments={experiments}")
    expect(page.get_by_role("heading", name=re.compile("Comparing 2 Runs"))).to_be_visible()
    expect(page.get_by_role("cell", name="0.3", exact=True).first).to_be_visible()
    save_screenshot(page, "mlflow-compare.png")
