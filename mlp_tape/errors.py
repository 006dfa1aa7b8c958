"""Errors that the user can correct, with a message and a correction."""


class MlpTapeError(Exception):
    """An error that is printed in two lines, without a traceback.

    Args:
        what: the problem, with the value found and what was expected.
        hint: the correction, or what to type instead.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}"


class ConfigError(MlpTapeError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class DataError(MlpTapeError):
    """A data set is missing, damaged or of the wrong shape."""

    exit_code = 2


class UserFunctionError(MlpTapeError):
    """A function of the user has failed."""


class TrackingError(MlpTapeError):
    """An MLflow store cannot be opened."""

    exit_code = 2


class DivergenceError(MlpTapeError):
    """The loss is not finite."""


class SweepError(MlpTapeError):
    """Some jobs of a sweep did not finish."""


class BrokenFileError(MlpTapeError):
    """A file in the directory of a run cannot be read."""


class DiskError(MlpTapeError):
    """A directory cannot be written to, because of a full disk or missing permission."""
