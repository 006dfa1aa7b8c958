"""Failures of a delivery: which of them may pass, what they mean, and what to do."""

import errno
import re
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from mlp_tape.errors import TrackingError
from mlp_tape.system.redaction import without_password

# What to install for a module that MLflow imports to reach an artifact store.
PACKAGES = {
    "boto3": "boto3",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "azure": "azure-storage-blob azure-identity",
    "paramiko": "paramiko",
    "pysftp": "pysftp",
}
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and MLFLOW_S3_ENDPOINT_URL if it is not at AWS",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "wasbs": "set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
}
DISK = {
    errno.ENOSPC: "free some space on it",
    errno.EDQUOT: "free some space on it, or have the quota raised",
    errno.EROFS: "it is on a read-only file system: mount it for writing",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOENT: "create or mount it",
    errno.ENOTDIR: "there is a file in place of a directory: move it away",
    errno.EEXIST: "there is a file in place of a directory: move it away",
    errno.EISDIR: "there is a directory in place of a file: move it away",
}
NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "NoAuthTokenError",
)
REFUSED = re.compile(
    r"AccessDenied|NoSuchBucket|InvalidAccessKeyId|SignatureDoesNotMatch|AllAccessDisabled|Forbidden|"
    r"AuthorizationFailure|AuthenticationFailed|ContainerNotFound|InvalidBucketName|[Ii]nvalid bucket name|"
    r"\b40[134]\b"
)
# Codes of MLflow's responses to a request that will never be accepted.
# Source: mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS, those below 500 except conflicts and limits.
NEVER = {
    "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "PERMISSION_DENIED", "UNAUTHENTICATED",
    "CUSTOMER_UNAUTHORIZED", "NOT_FOUND", "ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED",
}  # fmt: skip
# Messages of SQLite, PostgreSQL, MySQL and SQL Server if two requests create the same row, such as the one of
# a data set, which MLflow looks for and then inserts. MLflow passes them on with the code BAD_REQUEST.
SIMULTANEOUS = re.compile("UNIQUE constraint failed|duplicate key|Duplicate entry")


class IncompleteError(TrackingError):
    """MLflow has not accepted a part of a run.

    Args:
        what: which part, and why.
        hint: what to do.
        permanent: whether the same would happen again, until somebody does that.
        ended: whether the run has ended, so that everything else was delivered.
    """

    def __init__(self, what: str, hint: str, permanent: bool, ended: bool = False) -> None:
        super().__init__(what, hint)
        self.permanent, self.ended = permanent, ended


def is_permanent(error: BaseException) -> bool:
    """Returns whether an error would occur again, in contrast to an outage or a busy store."""
    if isinstance(error, MlflowException) and SIMULTANEOUS.search(str(error)):
        return False
    if isinstance(error, MlflowException):
        cause = error.__cause__ or error.__context__
        return error.error_code in NEVER or (isinstance(cause, ImportError | OSError) and is_permanent(cause))
    if isinstance(error, ImportError | LookupError | TypeError | AttributeError | AssertionError):
        return True
    if type(error) is ValueError:  # its subclasses may be about JSON
        return True
    if type(error).__name__ in NO_CREDENTIALS:
        return True
    if type(error).__module__.partition(".")[0] in ("botocore", "boto3", "google", "azure"):
        return bool(REFUSED.search(str(error)))
    return type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno in DISK


def of_files(names: str, location: str, error: Exception) -> IncompleteError:
    """Returns the error for files that the artifact store did not accept.

    Args:
        names: names of the files.
        location: artifact location of the run; may be empty.
        error: what was raised.
    """
    location = without_password(location)
    where = f"the artifact store {location}" if location else "the artifact store"
    return IncompleteError(
        f"{where} did not accept {names}: {why(error)}", _cure(error, location), is_permanent(error)
    )


def of_registry(name: str, error: Exception) -> IncompleteError:
    """Returns the error for a model, which has been logged, that the registry did not accept."""
    hint = "check MLFLOW_REGISTRY_URI and your rights there, or leave out tracking.register_as"
    return IncompleteError(
        f"the model registry did not accept {name}: {why(error)}", hint, is_permanent(error)
    )


def _cure(error: BaseException, location: str) -> str:
    """Returns what to do about an error of the artifact store."""
    credentials, causes = CREDENTIALS.get(urlsplit(location).scheme, ""), [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)  # type: ignore[arg-type]
    for each in causes:
        if isinstance(each, ImportError):
            module = (each.name or "").partition(".")[0]
            return f"pip install {PACKAGES.get(module, module or 'the package')}"
        if isinstance(each, OSError) and each.errno in DISK and type(each).__module__ == "builtins":
            return f"{each.filename2 or each.filename or location}: {DISK[each.errno]}"  # 2: of a copy
        if type(each).__name__ in NO_CREDENTIALS:
            return credentials or "set the credentials of the store"
        if REFUSED.search(str(each)):
            return f"check that it exists and that you may write to it{credentials and f'; {credentials}'}"
    return "check that it responds"


def why(error: BaseException) -> str:
    """Returns the line of an error that says what is wrong, without the advice to programmers before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of ")]
    return lines[0] if lines and lines[0] else type(error).__name__
