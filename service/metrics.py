"""What is counted and timed, under which names.

Fronts count; an engine's times reach them in every result, so engines need no metrics of their own. With several
processes prometheus_client keeps the numbers in files of PROMETHEUS_MULTIPROC_DIR, which the supervisor sets before any
front starts; `expose` adds them up. Every name is described in docs/operations.md.
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.request import Answer
from service.routes import Routes

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_RESERVED_BYTES: Final = 1 << 18
_NUMBER_BYTES: Final = 8


def _reserve() -> None:
    """Takes the room for this process's numbers before prometheus_client does.

    Its files have holes and are mapped: on a disk that is full by then, counting would end the process by SIGBUS.
    """
    for kind in ("counter", "histogram", "gauge_livesum"):
        path = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) / f"{kind}_{os.getpid()}.db"
        unfinished = path.with_suffix(".unfinished")  # an empty file of the other name would end every look at all
        try:
            with unfinished.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVED_BYTES)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def _value_class() -> Any:  # noqa: ANN401 - prometheus_client is untyped here
    """How this process counts: it does not fork, and only one of its threads counts.

    prometheus_client's own way looks which process this is, takes a lock and looks for the number's place each time.
    """
    shared: Any = values.MultiProcessValue(process_identifier=cache(os.getpid))  # type: ignore[no-untyped-call]  # untyped there

    class Value(shared):  # type: ignore[misc]  # see above
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - see above
            super().__init__(*args, **kwargs)
            start = self._file._positions[self._key]
            self._number = memoryview(self._file._m)[start : start + _NUMBER_BYTES].cast("d")

        def inc(self, amount: float) -> None:
            self._number[0] += amount

        def get(self) -> float:
            number: float = self._number[0]
            return number

    return Value


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    _reserve()
    values.ValueClass = _value_class()

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter("graft_requests", "Requests answered, by protocol and its status.", ["protocol", "status"])
FAILURES = Counter(
    "graft_failed_requests", "Requests that failed as a whole, by the error's code.", ["protocol", "code"]
)
REQUEST_SECONDS = Histogram(
    "graft_request_seconds", "Time from the whole request read to its answer ready.", ["protocol"], buckets=_SECONDS
)
IMAGES = Counter("graft_images", "Images answered, by OK or the error's code.", ["model", "version", "code"])
CACHED = Counter("graft_cached_images", "Images answered with what the same image got before.", ["model"])
STAGE_SECONDS = Histogram(
    "graft_stage_seconds", "Time of an image in each stage of the engine.", ["model", "stage"], buckets=_SECONDS
)
ENCODE_SECONDS = Histogram(
    "graft_encode_seconds",
    "Time from the classifier's answer to the bytes of the protocol's.",
    ["protocol"],
    buckets=(0.0001, 0.00025, 0.0005, *_SECONDS),
)
BATCH_SIZE = Histogram(
    "graft_batch_size", "Images that shared an inference, per image.", ["model"], buckets=(1, 2, 4, 8, 16, 32)
)
IN_FLIGHT = Gauge("graft_requests_in_flight", "Requests accepted and not yet answered.", multiprocess_mode="livesum")


def count_request(protocol: str, status: str) -> None:
    """Counts an answered request."""
    _requests(protocol, status).inc()


def count_failure(protocol: str, code: str) -> None:
    """Counts a request that failed as a whole."""
    _failures(protocol, code).inc()


def observe_encode(protocol: str, seconds: float) -> None:
    """Counts the time that it took to write an answer in the protocol's form."""
    _encode_seconds(protocol).observe(seconds)


def count_answer(protocol: str, seconds: float, answer: Answer) -> None:
    """Counts the classifier's answer to one request, and its images."""
    _request_seconds(protocol).observe(seconds)
    served = _served(answer.model, answer.version)
    for result in answer.results:
        if result.HasField("error"):
            IMAGES.labels(answer.model, str(answer.version), result.error.code).inc()
            continue
        served.answered.inc()
        timing = result.timing_ms
        if not timing.batch_size:
            CACHED.labels(answer.model).inc()
            continue
        served.queue.observe(timing.queue / 1e3)
        served.decode.observe(timing.decode / 1e3)
        served.inference.observe(timing.inference / 1e3)
        served.batch_size.observe(timing.batch_size)


class _Served:
    """The metrics of one version, found once: looking one up by its labels costs as much as counting in it."""

    def __init__(self, model: str, version: int) -> None:
        self.answered = IMAGES.labels(model, str(version), "OK")
        self.queue = STAGE_SECONDS.labels(model, "queue")
        self.decode = STAGE_SECONDS.labels(model, "decode")
        self.inference = STAGE_SECONDS.labels(model, "inference")
        self.batch_size = BATCH_SIZE.labels(model)


# what they are found by is the service's own: versions of the routing table, protocols and statuses
_served = cache(_Served)
_requests = cache(REQUESTS.labels)
_failures = cache(FAILURES.labels)
_request_seconds = cache(REQUEST_SECONDS.labels)
_encode_seconds = cache(ENCODE_SECONDS.labels)


def expect(model: str, version: int) -> None:
    """Makes room for what a version's answers will count, which takes as long as the first of them should."""
    _served(model, version)
    for protocol in ("http", "grpc"):
        _request_seconds(protocol)
        _encode_seconds(protocol)


def expose(routes: Routes) -> bytes:
    """Everything in Prometheus' text format: the fronts' numbers and what the routing table says."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped there
    registry.register(RoutesCollector(routes))
    return generate_latest(registry)


class RoutesCollector:
    """What the routing table says, as metrics."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        states = GaugeMetricFamily(
            "graft_version_state", "1 for the state that a version is in.", labels=["model", "version", "state"]
        )
        live = GaugeMetricFamily("graft_live_version", "The version that answers; 0 for none.", labels=["model"])
        refused = GaugeMetricFamily(
            "graft_refused_versions", "Published versions that failed to load or to prove themselves.", labels=["model"]
        )
        policy_errors = GaugeMetricFamily(
            "graft_policy_error", "1 while serving.json cannot be followed or the folder read.", labels=["model"]
        )
        engines = GaugeMetricFamily("graft_engines", "Engine processes that answer.", labels=["model", "version"])
        for name, model in self._routes.models.items():
            live.add_metric([name], model.live)
            refused.add_metric([name], len(model.refused))
            policy_errors.add_metric([name], 1 if model.error else 0)
            for number, version in model.versions.items():
                states.add_metric([name, str(number), version.state], 1)
                engines.add_metric([name, str(number)], len(version.sockets))
        restarts = CounterMetricFamily("graft_engine_restarts", "Engine processes that died and were replaced.")
        restarts.add_metric([], self._routes.restarts)
        yield from (states, live, refused, policy_errors, engines, restarts)
