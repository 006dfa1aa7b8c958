"""System metrics of the machine during a run, measured by MLflow's own monitor."""

from collections.abc import Callable

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SECONDS = 1.0  # between two samples, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is set

Values = dict[str, float]


class SystemMetrics(SystemMetricsMonitor):  # type: ignore[misc]
    """MLflow's monitor, which passes the values on; MLflow's own sends them, and ends on the first failure.

    Args:
        uri: URI of the store, to which no request is sent.
        take: called with values by metric key, such as `system/cpu_utilization_percentage`.
    """

    def __init__(self, uri: str, take: Callable[[Values], None]) -> None:
        super().__init__(run_id="", sampling_interval=SECONDS, tracking_uri=uri)
        self._take = take

    def monitor(self) -> None:
        """Measures until `finish` is called, and once more then, so that a short run has a sample as well."""
        self.collect_metrics()  # the reference for rates
        self._clear()
        samples, ended = 0, False
        while not ended:
            ended = self._shutdown_event.wait(self.sampling_interval)
            self.collect_metrics()
            samples += 1
            if ended or samples % self.samples_before_logging == 0:
                self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: Values) -> None:
        """Passes values on."""
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        self._take({prefix + key: float(value) for key, value in metrics.items()})
        self._clear()

    def _clear(self) -> None:
        for each in self.monitors:
            each.clear_metrics()
