"""The name of every file and folder in the directory of a run or of a sweep."""

# Of both
RECORD = "run.json"
LOCK = "run.lock"
JOURNAL = "journal.jsonl"
DELIVERY = "delivery.json"  # what MLflow has received
SETTINGS = "config.yaml"
ENVIRONMENT = "environment.txt"  # the machine and the installed packages
CONSOLE = "console.log"
PLOTS = "plots"

# Of a run
CHECKPOINTS = "checkpoints"
HISTOGRAMS = "histograms"
DIVERGENCE = "divergence"  # the step at which it diverged
WEIGHTS = "weights.npz"
NETWORK = "network.json"  # what the model needs besides the weights
PLOT_DATA = "report.npz"  # what the plots need besides the weights and the journal
SAVED_MODEL = "saved_model"

# Of a sweep
JOBS = "jobs.json"  # the folder of each job
DATA = "data.json"  # the data sets that all jobs use
SWEEP_LOCK = "ledger.lock"  # of these two files
STOP = "stop"  # why no further step is to be trained; the jobs end when it appears
SWEEP_TABLE = "sweep.csv"
SWEEP_PAGE = "sweep.md"
HYDRA_SWEEP = "multirun.yaml"  # written by Hydra
