"""The name of every file and folder in the directory of a run or of a sweep."""

import datetime
import secrets
from pathlib import Path

# Of runs and sweeps
RECORD = "run.json"
LOCK = "run.lock"
JOURNAL = "journal.jsonl"
DELIVERY = "delivery.json"  # what MLflow has received
COPY = "delivery-{}.json"  # what another store has received
SETTINGS = "config.yaml"
ENVIRONMENT = "environment.txt"  # the machine, the code and the installed packages
CHANGES = "uncommitted.diff"  # changes to the code since its commit
CONSOLE = "console.log"
PLOTS = "plots"

# Of runs
CHECKPOINTS = "checkpoints"
HISTOGRAMS = "histograms"
DIVERGENCE = "divergence"  # the step at which the run diverged
WEIGHTS = "weights.npz"
CHECKSUMS = "checksums.jsonl"  # SHA-256 of each parameter at the end of each epoch
NETWORK = "network.json"  # description of the model, apart from its weights
BY_CLASS = "classes.csv"  # precision, recall and F1 of each class
PLOT_DATA = "report.npz"  # data for the plots, apart from the weights and the journal
SAVED_MODEL = "saved_model"

# Of sweeps
JOBS = "jobs.json"  # directory of each job
DATA = "data.json"  # data sets that all jobs use
SWEEP_LOCK = "sweep.lock"  # protects these two files
STOP = "stop"  # contains the reason to stop; running jobs end once it exists
SWEEP_TABLE = "sweep.csv"
SWEEP_SEEDS = "sweep_seeds.csv"  # means over seeds
SWEEP_PAGE = "sweep.md"
HYDRA_SWEEP = "multirun.yaml"  # written by Hydra
STUDY = "study.log"  # of a search: its trials, in the format of Optuna's journal
STUDY_LOCK = "study.lock"


def new() -> Path:
    """Returns a directory for a new run, absolute and not yet created, named as in conf/config.yaml."""
    now = datetime.datetime.now()
    return Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-{secrets.token_hex(3)}").absolute()
