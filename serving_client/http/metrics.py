"""Metrics for Prometheus. docs/service.md lists them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving_client.client import PinClient
from serving_client.degraded import CODES
from serving_client.stages import STAGES, Stage, deadline
from serving_client.workers import Workers

STATUS_SECONDS = 1.0
"""So long the first publication may be waited for; then the metrics are without what it tells."""
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, client: PinClient, workers: Workers) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge("pinfeather_http_in_flight", "Requests under way.", registry=self.registry)
        self._requests = Counter(
            "pinfeather_http_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "pinfeather_http_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        stages = Histogram(
            "pinfeather_stage_seconds",
            "Time of a stage of a request.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._stages = {name: stages.labels(name) for name in STAGES}
        degraded = Counter(
            "pinfeather_degraded", "Answers that were not as asked for, by reason.", ["code"], registry=self.registry
        )
        self._degraded = {code: degraded.labels(code) for code in (*CODES, "other")}
        pending = Gauge("pinfeather_calls_pending", "Calls that run in a thread or wait.", registry=self.registry)
        pending.set_function(lambda: workers.pending)
        self.registry.register(_ClientCollector(client))

    def stage(self, name: Stage, seconds: float) -> None:
        """Hear of a stage; a listener for :func:`serving_client.stages.listening`."""
        self._stages[name].observe(seconds)

    def request(self, route: str, status: int, seconds: float, degraded: Collection[str]) -> None:
        """Count one request and the reasons of its answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        for code in degraded:
            self._degraded[code].inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


class _ClientCollector:
    """Reads the client's own counts when somebody asks for metrics."""

    def __init__(self, client: PinClient) -> None:
        self.client = client

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the client is asked only when metrics are."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics of now."""
        with deadline(STATUS_SECONDS):
            status = self.client.status()
        if status.publication is not None:
            yield GaugeMetricFamily(
                "pinfeather_served_publication_number", "The publication that answers.", value=status.publication
            )
        yield GaugeMetricFamily("pinfeather_served_release_number", "The release that decides.", value=status.release)
        if status.age is not None:
            seconds = status.age.total_seconds()
            yield GaugeMetricFamily("pinfeather_served_publication_age_seconds", "Its age.", value=seconds)
        ahead = self.client.pins_read_ahead
        yield GaugeMetricFamily("pinfeather_read_ahead_pins", "Pins whose rows were read ahead.", value=ahead)
        cache = status.query_cache
        for name, text, count in (
            ("hits", "Query vectors found in the cache.", cache.hits),
            ("misses", "Query vectors that were not in it.", cache.misses),
            ("shared", "Query vectors that another request was computing.", cache.shared),
            ("evictions", "Query vectors that made room for others.", cache.evictions),
            ("batches", "Calls of a query tower.", cache.batches),
            ("encoded", "Queries that a tower encoded.", cache.encoded),
            ("warmed", "Query vectors that came with a promotion.", cache.warmed),
        ):
            yield CounterMetricFamily(f"pinfeather_query_cache_{name}", text, value=count)
        yield GaugeMetricFamily("pinfeather_query_cache_entries", "Query vectors in the cache.", value=cache.entries)
        yield GaugeMetricFamily("pinfeather_query_cache_bytes", "Bytes of the cache.", value=cache.bytes)
