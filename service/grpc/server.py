"""`python -m service.grpc.server SETTINGS`: the process. One asyncio loop with all services, health and reflection."""

import asyncio
import signal
import sys
from pathlib import Path

import grpc
import setproctitle
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import classifier_pb2, classifier_pb2_grpc
from service.classifier import Classifier
from service.exchange import Observer
from service.garbage import settle
from service.grpc import open_inference, tensorflow_serving
from service.grpc.call import Call
from service.grpc.observed import Methods
from service.grpc.reflection import add_reflection
from service.grpc.servicer import Servicer
from service.grpc.transport import Server
from service.log import configure_log
from service.ports import bound
from service.reactor import AsyncioReactor
from service.readiness import Readiness
from service.settings import LISTENING, Settings, load_settings

_SERVICE = classifier_pb2.DESCRIPTOR.services_by_name["ImageClassifier"].full_name
_WATCHED = ("", _SERVICE)
_OVERHEAD_BYTES = 1 << 16
_LARGEST_MESSAGES = 16
"""So many may have come and wait for their answers, all clients together, or as many bytes of smaller ones."""

_State = health_pb2.HealthCheckResponse


class _Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1, with watches that end with the service.

    Those of grpcio-health-checking last until the client hangs up: the service would wait for its whole drain timeout.
    """

    def __init__(self) -> None:
        self._ready = False
        self._ending = False
        self._changed = asyncio.Event()

    def publish(self, ready: bool) -> None:
        """Tells whoever watches; from `end` on it is not ready any more."""
        self._ready = ready and not self._ending
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Tells whoever watches that it is not ready, and ends the watches."""
        self._ending = True
        self.publish(ready=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Call) -> _State:  # noqa: N802 - the protocol's name
        """See the protocol."""
        if request.service not in _WATCHED:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return self._state(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Call) -> None:  # noqa: N802
        """See the protocol."""
        told = None
        while True:
            changed, state = self._changed, self._state(request.service)
            if state != told:
                await context.write(state)
                told = state
            elif self._ending:
                return
            else:
                await changed.wait()

    def _state(self, service: str) -> _State:
        if service not in _WATCHED:
            return _State(status=_State.SERVICE_UNKNOWN)
        return _State(status=_State.SERVING if self._ready else _State.NOT_SERVING)


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM, then answers what was accepted and returns."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reactor = AsyncioReactor(loop)
    classifier = Classifier(
        reactor,
        settings.run_dir / "routes.json",
        max_queue=settings.max_queue,
        max_images=settings.max_images,
        max_image_bytes=settings.max_image_bytes,
        target_s=settings.target_p99_ms / 1e3,
        cache_bytes=settings.cache_bytes,
    )
    health = _Health()
    readiness = Readiness(classifier, reactor, health.publish, target_s=settings.target_p99_ms / 1e3)
    servicer = Servicer(classifier, settings)
    methods = Methods(Observer(settings), {f"/{_SERVICE}/Classify": servicer.admit})
    classifier_pb2_grpc.add_ImageClassifierServicer_to_server(servicer, methods)  # type: ignore[no-untyped-call]  # generated
    for name, handlers in tensorflow_serving.services(classifier, settings).items():
        methods.add_registered_method_handlers(name, handlers)
    methods.add_registered_method_handlers(
        open_inference.SERVICE, open_inference.methods(classifier, settings, readiness)
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, methods)  # type: ignore[arg-type]  # what it does to a server, it can do to these
    add_reflection([_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name], methods)
    most_bytes = settings.max_body_bytes + _OVERHEAD_BYTES
    server = Server(methods.by_name, most_bytes, _LARGEST_MESSAGES * most_bytes, settings.request_timeout_s)
    await server.start(bound(settings.host, settings.grpc_port))
    settle()
    (settings.run_dir / f"grpc{LISTENING}").touch()
    await stop.wait()
    servicer.end_streams()
    health.end()
    await server.stop(settings.drain_timeout_s)
    del readiness


def main() -> None:
    """Runs the front with the settings file that the supervisor wrote."""
    setproctitle.setproctitle("graft front grpc")
    settings = load_settings(Path(sys.argv[1]))
    configure_log(settings.log_level, settings.log_format)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
