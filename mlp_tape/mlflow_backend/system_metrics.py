"""What the machine does while a run lasts, as MLflow's own monitor measures it."""

from collections.abc import Callable

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SECONDS = 1.0  # between two samples, if MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL does not say otherwise

Values = dict[str, float]


class SystemMetrics(SystemMetricsMonitor):  # type: ignore[misc]
    """MLflow's monitor, which hands over what it measures; its own sends it, and ends at the first failure.

    Args:
        uri: of the store, which is not asked.
        take: is given values by their keys, such as `system/cpu_utilization_percentage`.
    """

    def __init__(self, uri: str, take: Callable[[Values], None]) -> None:
        super().__init__(run_id="", sampling_interval=SECONDS, tracking_uri=uri)
        self._take = take

    def monitor(self) -> None:
        """Measures until `finish` is called, and then once more, so that a short run has something, too."""
        self.collect_metrics()  # rates are measured from here on
        self._clear()
        samples, ended = 0, False
        while not ended:
            ended = self._shutdown_event.wait(self.sampling_interval)
            self.collect_metrics()
            samples += 1
            if ended or samples % self.samples_before_logging == 0:
                self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: Values) -> None:
        """Hands values over."""
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        self._take({prefix + key: float(value) for key, value in metrics.items()})
        self._clear()

    def _clear(self) -> None:
        for each in self.monitors:
            each.clear_metrics()
