"""The printed links, opened in a real browser with a real `mlflow ui`."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import LIMIT, WITHOUT_JOBS, Run, mlp_tape, responds, wait_until

pytestmark = pytest.mark.long
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MILLISECONDS = 1000 * LIMIT
DATA = os.environ.get("MLP_TAPE_MNIST")
MNIST = [f"dataset.path={Path(DATA).resolve()}"] if DATA else ["dataset=mnist_5k", "log_every=10"]

SWEEP = ["lr=0.1,0.3,0.03", "dataset=digits", "epochs=3"]

# Whether the page shows a loaded image that is 800 pixels wide.
IMAGE_LOADED = """[...document.images].some(
    image => image.naturalWidth == 800 && image.getBoundingClientRect().width > 300)"""

# Whether every chart of the page has data points.
CHARTS_DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].every(chart => chart.data?.[0]?.x?.length)"


@dataclass(frozen=True)
class Place:
    """A directory whose store a running `mlflow ui` shows.

    Attributes:
        run: function that runs the program there, with arguments, and returns the printed link.
        compare: function that runs `python -m mlp_tape compare` there, and returns the printed link.
    """

    run: Callable[..., str]
    compare: Callable[..., str]


def link_in(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    (link,) = re.findall(r"http://127\.0\.0\.1:\d+/\S+", done.stdout)
    return str(link)


@pytest.fixture(scope="module")
def ui(run_py: Run, offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A directory whose store a running `mlflow ui` shows, which is found by the program."""
    if CHROMIUM is None:
        pytest.skip("install a browser to run this test: apt-get install chromium")
    directory = tmp_path_factory.mktemp("ui")
    with socket.create_server(("127.0.0.1", 0)) as free:
        environment = {"MLFLOW_PORT": str(free.getsockname()[1])}
    url = f"http://127.0.0.1:{environment['MLFLOW_PORT']}"

    def run(*arguments: str) -> str:
        done = run_py(directory, *arguments, **environment)
        assert "to see it     open the link; mlflow ui is already running" in done.stdout
        assert link_in(done).startswith(url)
        return link_in(done)

    first = run_py(directory, "dataset=digits", "epochs=1", "tracking.experiment=other", **environment)
    assert link_in(first).startswith(url)
    assert "to see it     mlflow ui, then open the link" in first.stdout
    log = directory / "ui.log"
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("mlflow")), "ui"],
        cwd=directory,
        env=offline | WITHOUT_JOBS | environment,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until("the UI", lambda: responds(f"{url}/health", server, log))
        yield Place(run, lambda *runs: link_in(mlp_tape(directory, offline | environment, "compare", *runs)))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT)


def page_of(link: str) -> str:
    """Returns the URL of the page of the run to whose charts or jobs a link leads."""
    return re.sub(r"\?viewStateShareKey=\w+-(\w+)\S*", r"/\1?workflowType=machine_learning", link)


def titles_and_points(page: Any) -> list[tuple[str, int]]:
    """Returns title and number of points of the charts that are completely in the first screen."""
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_function(CHARTS_DRAWN)
    height = page.viewport_size["height"]
    found = []
    for chart in page.locator(".js-plotly-plot").all():
        box = chart.bounding_box()
        if box["y"] + box["height"] <= height:
            found.append(chart.evaluate("chart => [chart.data[0].metricKey, chart.data[0].x.length]"))
    return [tuple(each) for each in found]


@pytest.fixture
def page() -> Iterator[Any]:
    """A page in a real browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
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


def test_link_opens_the_charts_with_loss_and_accuracy_in_the_first_screen(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    page.goto(ui.run(*MNIST))
    expect(page.get_by_text("Model registry")).to_be_visible()  # the section of the UI for model training
    sections = page.locator("[aria-expanded]").filter(has_text=re.compile(r"\(\d+\)"))
    expect(sections).to_contain_text(
        ["Loss and accuracy", "parameters", "gradients", "Updates relative to parameters", "Learning rate"]
    )
    charts = titles_and_points(page)
    assert charts == [("train/loss", 320), ("test/accuracy", 10), ("test/loss", 10)]  # at most 320 are drawn
    save_screenshot(page, "mlflow-run.png")


def test_run_page_shows_the_description_and_loads_the_plots(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    link = page_of(ui.run(*MNIST, "epochs=3", "lr=0.5", "tracking.experiment=plots"))
    page.goto(link)
    expect(page.get_by_text("784 → 256 → 128 → 10").first).to_be_visible()
    more = page.get_by_text("Show more", exact=True)
    if more.count():  # expands the description for the screenshot
        more.first.click()
    expect(page.get_by_text("To use the model")).to_be_visible()
    save_screenshot(page, "mlflow-page.png")
    for name in ("worst_mistakes", "first_layer", "histograms", "layers", "learning_curve"):
        page.goto(link.replace("?", f"/artifacts/plots/{name}.png?"))
        page.wait_for_function(IMAGE_LOADED)
    save_screenshot(page, "mlflow-plot.png")


def test_model_page_shows_data_set_version_metrics_and_params(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    link = ui.run("dataset=digits", "epochs=1", "tracking.experiment=models", "tracking.register_as=shown")
    page.goto(re.sub(r"/runs.*", "/models", link))  # the list of the experiment's models
    page.get_by_role("link", name="model", exact=True).first.click()
    expect(page.get_by_text("Datasets used")).to_be_visible()
    expect(page.get_by_text(re.compile(r"digits \(#")).first).to_be_visible()
    expect(page.get_by_text("shown v1").first).to_be_visible()
    expect(page.get_by_text("Metrics (2)")).to_be_visible()
    expect(page.get_by_role("cell", name="layer_sizes", exact=True)).to_be_visible()
    save_screenshot(page, "mlflow-model.png")


def test_link_opens_the_jobs_of_a_sweep_with_what_was_swept_and_the_accuracy(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    link = ui.run("-m", *SWEEP, "tracking.experiment=list")
    page.goto(link)
    for column in ("metrics.`validation/best_accuracy`", "params.`lr`"):
        expect(page.locator(f".ag-header-cell[col-id='{column}']")).to_be_in_viewport(ratio=1)
    names = page.locator("[row-id] [col-id='attributes.`Run Name`'] a")
    expect(names).to_have_text(["lr=0.3", "lr=0.1", "lr=0.03"])  # the best first
    values = page.locator("[row-id] [col-id='params.`lr`']")
    expect(values).to_have_text(["0.3", "0.1", "0.03"])
    save_screenshot(page, "mlflow-sweep.png")
    page.goto("about:blank")
    page.goto(f"{link}&compareRunsMode=CHART")
    expect(page.get_by_text("Loss and accuracy")).to_be_visible()
    assert titles_and_points(page)[0] == ("validation/accuracy", 3)


def test_page_of_a_sweep_has_a_table_and_its_jobs_are_nested_below_it(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    link = page_of(ui.run("-m", *SWEEP, "tracking.experiment=sweeps"))
    page.goto(link)
    expect(page.get_by_role("heading", name="sweep lr=0.1,0.3,0.03")).to_be_visible()
    expect(page.get_by_role("cell", name="FINISHED", exact=True)).to_have_count(3)  # the table of the jobs
    page.goto(re.sub(r"/runs/\w+", "/runs", link))  # the list of the experiment's runs
    parent = page.get_by_role("gridcell").filter(has=page.get_by_role("link", name="sweep lr=0.1,0.3,0.03"))
    parent.get_by_role("button").first.click()  # expands the nested runs
    for name in ("lr=0.1", "lr=0.3", "lr=0.03"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()


def test_comparison_opens_on_the_accuracy(ui: Place, page: Any) -> None:
    from playwright.sync_api import expect

    ui.run("-m", *SWEEP, "tracking.experiment=compared", "hydra.sweep.dir=compared")
    page.goto(ui.compare("compared"))
    expect(page.get_by_role("heading", name="test/accuracy").first).to_be_visible()
    expect(page.get_by_role("link", name="Comparing 3 Runs")).to_be_visible()
    for name in ("lr=0.1", "lr=0.3", "lr=0.03"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport()
    page.wait_for_function(CHARTS_DRAWN)
    save_screenshot(page, "mlflow-compare.png")
