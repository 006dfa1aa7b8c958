"""The printed link, in a real browser against a real `mlflow ui`."""

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

from conftest import LIMIT, WITHOUT_JOBS, Run, answers, wait_until

pytestmark = pytest.mark.long
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MILLISECONDS = 1000 * LIMIT
DATA = os.environ.get("MLP_TAPE_MNIST")
MNIST = [f"dataset.path={Path(DATA).resolve()}"] if DATA else ["dataset=mnist_5k", "log_every=10"]

# Whether a picture of 800 dots is there, loaded, and drawn in some place of the page.
SHOWN = """[...document.images].some(
    image => image.naturalWidth == 800 && image.getBoundingClientRect().width > 300)"""

# Whether each chart of the page has its points.
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].every(chart => chart.data?.[0]?.x?.length)"


@pytest.fixture(scope="module")
def ui(
    run_py: Run, offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., list[str]]]:
    """A function that runs the program and returns the links that it printed, while `mlflow ui` answers."""
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

    run("dataset=digits", "epochs=1", "tracking.experiment=other")  # makes the database
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
        wait_until("the UI", lambda: answers(f"http://127.0.0.1:{port}/health", server, log))
        yield run
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT)


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a real browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1080})
        page.set_default_timeout(MILLISECONDS)
        playwright.expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


def keep(page: Any, name: str) -> None:
    """Takes a picture for the README, where one is asked for."""
    folder = os.environ.get("MLP_TAPE_SCREENSHOTS")
    if folder:
        assistant = page.get_by_role("button", name="Close", exact=True)  # beside the page
        if assistant.count():
            assistant.first.click()
        page.wait_for_timeout(2000)
        page.screenshot(path=str(Path(folder) / name))


def test_the_link_opens_the_run_among_the_training_runs_with_its_loss_curve(
    ui: Callable[..., list[str]], page: Any
) -> None:
    from playwright.sync_api import expect

    (link,) = ui(*MNIST)
    page.goto(link)
    page.get_by_role("tab", name="Model metrics", selected=True).wait_for()
    expect(page.get_by_text("Model registry")).to_be_visible()  # the half of the UI for training
    page.get_by_placeholder("Search metric charts").fill("^(train/loss|test/)")
    charts = page.locator(".js-plotly-plot")
    expect(charts).to_have_count(3)
    page.wait_for_function(DRAWN)
    points = [chart.evaluate("chart => chart.data[0].x.length") for chart in charts.all()]
    assert sorted(points) == [10, 10, 320]  # of many points, the UI draws 320
    keep(page, "mlflow-run.png")


def test_the_page_of_a_run_tells_of_it_and_its_pictures_load(ui: Callable[..., list[str]], page: Any) -> None:
    from playwright.sync_api import expect

    (link,) = ui(*MNIST, "epochs=3", "lr=0.5", "tracking.experiment=pictures")
    page.goto(link.replace("/model-metrics", ""))
    expect(page.get_by_text("784 → 256 → 128 → 10").first).to_be_visible()
    more = page.get_by_text("Show more", exact=True)
    if more.count():  # the whole of it, for the picture
        more.first.click()
    expect(page.get_by_text("To use the model")).to_be_visible()
    keep(page, "mlflow-page.png")
    for name in ("worst_mistakes", "first_layer", "histograms", "layers", "learning_curve"):
        page.goto(link.replace("/model-metrics", f"/artifacts/plots/{name}.png"))
        page.wait_for_function(SHOWN)
    keep(page, "mlflow-picture.png")


def test_a_sweep_has_its_jobs_below_it_and_two_of_them_can_be_compared(
    ui: Callable[..., list[str]], page: Any
) -> None:
    from playwright.sync_api import expect

    (link,) = ui("-m", "lr=0.1,0.3,0.03", "dataset=digits", "epochs=3", "tracking.experiment=sweeps")
    page.goto(link)
    expect(page.get_by_role("heading", name="sweep lr=0.1,0.3,0.03")).to_be_visible()
    expect(page.get_by_role("cell", name="FINISHED", exact=True)).to_have_count(3)  # the table
    keep(page, "mlflow-sweep-page.png")
    page.goto(re.sub(r"/runs/\w+", "", link))  # the experiment's runs
    parent = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="sweep lr=0.1,0.3,0.03"))
    parent.get_by_role("button").first.click()  # unfolds it
    for name in ("lr=0.1", "lr=0.3", "lr=0.03"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    keep(page, "mlflow-sweep.png")
    identities = [
        str(page.get_by_role("link", name=name, exact=True).get_attribute("href")).rpartition("/")[2]
        for name in ("lr=0.1", "lr=0.3")
    ]
    experiment = re.search(r"/experiments/(\d+)", link)
    assert experiment
    address = link.partition("#")[0]
    runs, experiments = json.dumps(identities), json.dumps([experiment[1]])
    page.goto(f"{address}#/compare-runs?runs={runs}&experiments={experiments}")
    expect(page.get_by_role("heading", name=re.compile("Comparing 2 Runs"))).to_be_visible()
    expect(page.get_by_role("cell", name="0.3", exact=True).first).to_be_visible()
    keep(page, "mlflow-compare.png")
