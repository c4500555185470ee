"""What the server counts, in Prometheus' text format on ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from flyte_unified.core.http import Request, Response, Route

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One registry for a server, so that two servers in one process count apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("procedure", "protocol", "code")
        self._calls = Counter("flyte_unified_rpc", "RPCs that ended", labels, registry=self._registry)
        self._seconds = Histogram(
            "flyte_unified_rpc_seconds", "Time of RPCs", ("procedure",), buckets=_SECONDS, registry=self._registry
        )
        self._in_flight = Gauge("flyte_unified_rpc_in_flight", "RPCs under way", registry=self._registry)

    def observe(self, procedure: str, protocol: str, code: str, seconds: float) -> None:
        self._calls.labels(procedure, protocol, code).inc()
        self._seconds.labels(procedure).observe(seconds)

    def in_flight(self, step: int) -> None:
        self._in_flight.inc(step)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is read when somebody asks."""
        Gauge(f"flyte_unified_{name}", text, registry=self._registry).set_function(value)

    @property
    def route(self) -> Route:
        return Route("GET", "/metrics", self._answer)

    async def _answer(self, _: Request) -> Response:
        headers = (("content-type", "text/plain; version=0.0.4; charset=utf-8"),)
        return Response(headers=headers, body=generate_latest(self._registry))
