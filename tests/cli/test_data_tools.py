"""The commands `data` and `predict`, on files as people have them."""

import gzip
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import Run, mlp_tape
from mlp_tape.data import datasets, inputs
from mlp_tape.errors import ConfigError, DataError
from mlp_tape.runs import predict
from mlp_tape.storage import run_record

DIGITS = datasets.load("digits")
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
BRIGHT = (15 * DIGITS.x_test).astype(np.uint8)
PIXELS = [f"pixel{k}" for k in range(64)]


def read(directory: Path, *arguments: str) -> tuple[int, str, str]:
    done = mlp_tape(directory, {}, *arguments)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run on images of 0 to 240 in classes with names."""
    directory = tmp_path_factory.mktemp("trained")
    x = (15 * DIGITS.x_train).astype(np.uint8)
    np.savez(
        directory / "own.npz",
        x_train=x,
        y_train=NAMES[DIGITS.y_train],
        x_test=BRIGHT,
        y_test=NAMES[DIGITS.y_test],
    )
    better = ("optimizer=adam", "loss=cross_entropy", "lr=0.01", "model.init=he")
    done = run_py(directory, "dataset.path=own.npz", "epochs=5", "tracking.enabled=false", *better)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.long
def test_data_shows_what_was_understood(trained: Path) -> None:
    code, out, _ = read(trained, "data", "own.npz")
    assert code == 0
    assert "train uint8 from 0 to 240, test uint8 from 0 to 240; divided by 255" in out
    assert "the labels are names" in out
    assert [line.split() for line in out.splitlines() if line.startswith("eight")] == [["eight", "141", "33"]]
    assert "train  python run.py dataset=arrays dataset.path=own.npz" in out
    sheet = matplotlib.image.imread(trained / "samples.png")
    assert sheet.shape[1] == 800
    assert sheet[..., :3].std() > 0.1


def test_data_shows_columns_and_doubts_of_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)) * [1, 1000], columns=["height", "income"])
    table.assign(label=np.where(np.arange(60) < 58, "no", "yes")).to_csv(tmp_path / "a b.csv", index=False)
    code, out, _ = read(tmp_path, "data", "a b.csv", "dataset.test_fraction=0.5", "dataset.scale=1000")
    assert code == 0
    assert "30 rows are split off (dataset.test_fraction=0.5)" in out
    assert "doubt  the columns of x_train differ by orders of magnitude" in out
    assert not (tmp_path / "samples.png").exists()
    command = next(line for line in out.splitlines() if line.startswith("train  "))
    assert "'dataset.path=a b.csv'" in command


def test_commands_that_take_settings_find_own_configs(tmp_path: Path) -> None:
    folder = tmp_path / "my configs" / "experiment"
    folder.mkdir(parents=True)
    folder.joinpath("mine.yaml").write_text(
        "# @package _global_\ndataset: {test_fraction: 0.25}\nmodel: {hidden_sizes: [7]}\n"
    )
    table = pd.DataFrame({"a": range(40), "b": range(40), "label": [0, 1] * 20})
    table.to_csv(tmp_path / "own.csv", index=False)
    own = "--config-dir", "my configs", "+experiment=mine"
    code, out, err = read(tmp_path, "data", "own.csv", *own)
    assert code == 0, err
    assert "30 images to train on, 10 to test" in out
    assert "'--config-dir=my configs' dataset=arrays dataset.path=own.csv +experiment=mine" in out
    code, out, err = read(tmp_path, "walk", "dataset=digits", *own)
    assert code == 0 and "(64, 7)" in out, err
    for command in ("data", "own.csv"), ("walk",):
        code, _, err = read(tmp_path, *command, "--config-dir=nowhere")
        assert code == 2 and f"--config-dir=nowhere: there is no directory {tmp_path / 'nowhere'}" in err


@pytest.mark.parametrize(
    ("command", "required"),
    [("compare", "RUN"), ("data", "PATH"), ("predict", "RUN, FILE"), ("reproduce", "RUN"), ("replay", "RUN")],
)
def test_only_what_is_required_is_called_required(command: str, required: str, tmp_path: Path) -> None:
    code, _, err = read(tmp_path, command)
    assert code == 2
    assert err.endswith(f"the following arguments are required: {required}\n")


@pytest.mark.long
def test_data_accepts_the_name_of_a_data_set_and_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import numpy as np\ndef f(): return np.eye(12), np.arange(12) % 3\n")
    assert "data   digits, 1,437 images" in read(tmp_path, "data", "digits")[1]
    assert "data   mine.f, " in read(tmp_path, "data", "mine.f")[1]
    assert read(tmp_path, "data", "mnits")[0] == 2
    code, _, err = read(tmp_path, "data", "nothing.csv")
    assert code == 2
    assert "nothing.csv does not exist" in err


def test_each_kind_of_file_is_predicted_alike(trained: Path, tmp_path: Path) -> None:
    table = pd.DataFrame(BRIGHT.reshape(-1, 64), columns=PIXELS)
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.assign(label=DIGITS.y_test).to_csv(tmp_path / "labels.csv", index=False)
    table.insert(0, "ImageId", np.arange(1, 361))
    table.to_csv(tmp_path / "ids.csv", index=False)
    table.to_parquet(tmp_path / "ids.parquet")
    np.savetxt(tmp_path / "bare.csv", BRIGHT.reshape(-1, 64), "%d", delimiter=",")
    np.save(tmp_path / "images.npy", BRIGHT)
    np.save(tmp_path / "flat.npy", BRIGHT.reshape(-1, 64).astype(np.float32))
    np.savez(tmp_path / "all.npz", x_test=BRIGHT, x_train=BRIGHT[:3], y_test=DIGITS.y_test)
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in BRIGHT.shape)
    (tmp_path / "images.gz").write_bytes(gzip.compress(header + BRIGHT.tobytes()))
    (tmp_path / "png").mkdir()
    for k, image in enumerate(BRIGHT):
        Image.fromarray(image).save(tmp_path / "png" / f"{k:03}.png")
    (found,) = run_record.directories(trained / "outputs")
    predictor = predict.of_run(run_record.read(found))
    for path in sorted(tmp_path.iterdir()):
        made = inputs.read(path, predictor.shape)
        np.testing.assert_array_equal(made.x, BRIGHT, err_msg=path.name)
        table = predictor.predict(made)
        accuracy = np.mean(table["class"] == NAMES[DIGITS.y_test])
        assert accuracy == run_record.read(found).results["test/accuracy"] > 0.85
        np.testing.assert_allclose(table.filter(like="probability_").sum(axis=1), 1, rtol=1e-6)


def test_predictions_are_printed_and_written(trained: Path, tmp_path: Path) -> None:
    table = pd.DataFrame(BRIGHT.reshape(-1, 64), columns=PIXELS)
    table.insert(0, "PassengerId", np.arange(900, 1260))
    table.to_csv(trained / "rows.csv", index=False)
    Image.fromarray(BRIGHT[0]).resize((16, 16), Image.Resampling.NEAREST).save(trained / "large.png")
    code, out, _ = read(trained, "predict", "last", "large.png", "rows.csv", "--csv", "out.csv")
    assert code == 0
    assert "images of 1 size are resized to 8x8" in out
    assert "large.png  two  " in out
    assert "... and 340 more predictions" in out
    written = pd.read_csv(trained / "out.csv")
    assert list(written)[:4] == ["file", "class", "name", "probability"]
    assert len(written) == 361
    code, out, _ = read(trained, "predict", "last", "rows.csv", "--submission", "sub.csv")
    submission = pd.read_csv(trained / "sub.csv")
    assert list(submission) == ["PassengerId", "Label"]
    assert submission["PassengerId"].tolist() == list(range(900, 1260))
    assert submission["Label"].tolist() == written["class"].tolist()[1:]
    arguments = ("predict", "last", "large.png", "--submission", "sub.csv", "--columns", "id,digit")
    assert read(trained, *arguments)[0] == 0
    assert (trained / "sub.csv").read_text() == "id,digit\n1,two\n"


REFUSED = {
    "floats of another scale": (
        lambda path: np.save(path.open("wb"), BRIGHT / 255),
        "trained on values from 0 to 240",
    ),
    "another shape": (lambda path: np.save(path.open("wb"), BRIGHT[:, :7]), "has the shape [360, 7, 8]"),
    "labels alone": (lambda path: np.savez(path.open("wb"), y=np.zeros(3)), "has y"),
    "several arrays": (lambda path: np.savez(path.open("wb"), a=BRIGHT, b=BRIGHT), "has a, b"),
    "a table of another width": (
        lambda path: path.write_text("a,b\n1,2\n3,4\n"),
        "has 2 columns of features",
    ),
    "text": (lambda path: path.write_text("hello\nworld\n"), "has 1 column of features"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04]\x94."), "is a pickle"),
    "an empty directory": (lambda path: path.mkdir(), "contains no images"),
    "nothing": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_predicted_is_refused(trained: Path, tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    make(tmp_path / "file")
    (found,) = run_record.directories(trained / "outputs")
    predictor = predict.of_run(run_record.read(found))
    with pytest.raises(DataError) as error:
        predictor.predict(inputs.read(tmp_path / "file", predictor.shape))
    assert message in error.value.what
    assert error.value.hint


def test_inverted_images_are_told(trained: Path, tmp_path: Path) -> None:
    (found,) = run_record.directories(trained / "outputs")
    predictor = predict.of_run(run_record.read(found))
    np.save(tmp_path / "x.npy", 240 - BRIGHT)
    (doubt,) = predictor.doubts(inputs.read(tmp_path / "x.npy", predictor.shape))
    assert "invert them" in doubt
    np.save(tmp_path / "x.npy", BRIGHT)
    assert not list(predictor.doubts(inputs.read(tmp_path / "x.npy", predictor.shape)))


def test_a_run_without_a_network_is_refused(run_py: Run, tmp_path: Path) -> None:
    code, _, err = read(tmp_path, "predict", "last", "x.npy")
    assert code == 2
    assert "no such run" in err
    done = run_py(tmp_path, "dataset=digits", "epochs=1", "report=none", "tracking.enabled=false")
    assert done.returncode == 0
    (found,) = run_record.directories(tmp_path / "outputs")
    with pytest.raises(ConfigError, match="has no trained network"):
        predict.of_run(run_record.read(found))


@pytest.mark.long
def test_a_model_in_mlflow_is_used_where_the_directory_of_its_run_is_not(run_py: Run, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    done = run_py(here, "dataset=digits", "epochs=1", "lr=0.1", "tracking.register_as=mine")
    assert done.returncode == 0, done.stderr
    (found,) = run_record.directories(here / "outputs")
    run = run_record.read(found)
    np.save(there / "x.npy", DIGITS.x_test)
    expected = read(here, "predict", "last", str(there / "x.npy"))[1]
    uri = ("--uri", f"sqlite:///{here}/mlflow.db")
    for which in (run.run_id, "models:/mine/1", str(found)):
        code, out, err = read(there, "predict", which, str(there / "x.npy"), *uri)
        assert (code, out) == (0, expected), err
    for which, message in (("1" * 32, "no such run"), ("models:/other/1", "no model in")):
        code, _, err = read(there, "predict", which, "x.npy", *uri)
        assert code == 2
        assert message in err
    code, _, err = read(there, "predict", run.run_id, "x.npy")
    assert code != 0
    assert "mlflow.db does not exist" in err
    assert not (there / "mlflow.db").exists()
