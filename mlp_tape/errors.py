"""The errors a person can do something about: what is wrong, and what to type instead."""


class MlpTapeError(Exception):
    """An error that is told in two lines and without a traceback.

    Args:
        what: what is wrong, with the value found and what was expected.
        hint: what to do or to type instead.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}"


class ConfigError(MlpTapeError):
    """A setting that is unknown, of the wrong type or out of its range."""

    exit_code = 2


class DataError(MlpTapeError):
    """A data set that is missing, broken or of the wrong shape."""

    exit_code = 2


class TrackingError(MlpTapeError):
    """An MLflow store that cannot be opened."""

    exit_code = 2


class DivergenceError(MlpTapeError):
    """A loss that is no longer a finite number."""


class SweepError(MlpTapeError):
    """A sweep some of whose jobs did not finish."""


class BrokenFileError(MlpTapeError):
    """A file of the run's directory that cannot be read any more."""


class DiskError(MlpTapeError):
    """A directory that takes no more: a full disk, or one that may not be written to."""
