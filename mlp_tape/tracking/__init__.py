"""The tracker's interface, the store's URI, the client of the MLflow process, the session around a run."""
