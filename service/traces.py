"""OpenTelemetry spans of requests and their stages, sent to a collector by OTLP over HTTP.

Needs the extra `otel`. Imported only where --otlp-endpoint is given, so everybody else pays nothing. A request's span
covers its way through the front; below it are the spans of `read`, of every image's `queue`, `decode` and `inference`,
and of `encode`. Engines know nothing of traces: their stages are drawn from the times in the answer, one after the
other, so how long each took is measured and where an image of a larger batch waited between two stages is not shown.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from service.exchange import Exchange
    from service.request import Answer

_MOST_IMAGES: Final = 16
"""Images of one request whose stages get spans of their own."""

_EXPORT_TIMEOUT_S: Final = 3
"""For one batch of spans; what a collector does not take in this time, retries included, is dropped."""


class Traces:
    """Makes and sends the spans of one process. OpenTelemetry's own OTEL_* variables choose sampling and batching.

    Args:
        endpoint: the collector's URL; spans go to /v1/traces below it.
    """

    def __init__(self, endpoint: str) -> None:
        resource = Resource({SERVICE_NAME: "graft"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._provider = provider
        self._tracer = provider.get_tracer("graft")
        self._propagator = TraceContextTextMapPropagator()
        # exchanges know the monotonic clock, collectors the time of day
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def begin(self, exchange: "Exchange", traceparent: str, tracestate: str, parent: Span | None) -> Span:
        """Begins the span of a request.

        Args:
            exchange: the request.
            traceparent: the caller's span; what is malformed counts as none.
            tracestate: what belongs to it.
            parent: the span of the stream that it is part of.
        """
        if parent is not None:
            context = trace.set_span_in_context(parent)
        else:
            context = self._propagator.extract({"traceparent": traceparent, "tracestate": tracestate})
        return self._tracer.start_span(
            exchange.method[:200],
            context,
            kind=SpanKind.INTERNAL if parent is not None else SpanKind.SERVER,
            attributes={"graft.protocol": exchange.protocol},
            start_time=self._at(exchange.started),
        )

    def end(self, exchange: "Exchange", status: str, ended: float, *, failed: bool) -> None:
        """Ends the span of a request, with those of its stages.

        Args:
            exchange: the request.
            status: the protocol's.
            ended: monotonic seconds.
            failed: whether the status is an error.
        """
        span: Span = exchange.span
        if not span.is_recording():
            return
        span.set_attribute("graft.request_id", exchange.request_id)
        grpc = exchange.protocol == "grpc"
        span.set_attribute("rpc.response.status_code" if grpc else "http.response.status_code", _status(status))
        if failed:
            span.set_attribute("error.type", exchange.code)
            if grpc or status >= "500":  # over HTTP, 4xx is the client's error and not the span's
                span.set_status(StatusCode.ERROR, exchange.code)
        if exchange.answer:
            self._stages(span, exchange, exchange.answer, ended)
        span.end(self._at(ended))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()

    def _stages(self, span: Span, exchange: "Exchange", answer: "Answer", ended: float) -> None:
        span.set_attribute("graft.model", answer.model)
        span.set_attribute("graft.version", answer.version)
        span.set_attribute("graft.images", len(answer.results))
        self._child(span, "read", exchange.started, exchange.submitted)
        for number, result in enumerate(answer.results[:_MOST_IMAGES]):
            timing = result.timing_ms
            if not timing.batch_size:  # it failed, or is the answer of an image before
                continue
            about: dict[str, Any] = {"graft.image": number, "graft.batch_size": timing.batch_size}
            start = exchange.submitted
            for name, took_ms in (("queue", timing.queue), ("decode", timing.decode), ("inference", timing.inference)):
                self._child(span, name, start, start + took_ms / 1e3, about)
                start += took_ms / 1e3
        self._child(span, "encode", exchange.answered, ended)

    def _child(self, span: Span, name: str, start: float, end: float, attributes: dict[str, Any] | None = None) -> None:
        context = trace.set_span_in_context(span)
        self._tracer.start_span(name, context, attributes=attributes, start_time=self._at(start)).end(self._at(end))

    def _at(self, seconds: float) -> int:
        return int(seconds * 1e9) + self._offset_ns


def _status(status: str) -> int | str:
    return int(status) if status.isdigit() else status
