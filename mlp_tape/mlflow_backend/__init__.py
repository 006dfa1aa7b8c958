"""What runs inside the MLflow process, and the tools that need MLflow."""

import os

# Set before the import of MLflow, which reads these then, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# If a response is lost, the request may have succeeded: MLflow would send it again, we check first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # it loses data; the journal does not
