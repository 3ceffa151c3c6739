"""Every gRPC call becomes an exchange: its id is honoured or made, and goes back as metadata behind the answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.errors import GraftError, InvalidRequest
from service.exchange import Exchange, Observer, is_request_id, note_failure, set_present
from service.grpc.call import Aborted, Call, Method
from service.grpc.servicer import aborted
from service.metrics import count_request

_Run = Callable[[Any, Call], Awaitable[bytes | None]]
_Admit = Callable[[Call], None]
"""Raises a GraftError."""


class Methods:
    """The methods of services, each of whose calls is observed. Generated code adds to it as to a server of grpc.

    Attributes:
        by_name: the methods, by "/package.Service/Method".

    Args:
        observer: this process's.
        admit: asked, by a method's name, before a call's message is read.
    """

    def __init__(self, observer: Observer, admit: Mapping[str, _Admit]) -> None:
        self.by_name: dict[str, Method] = {}
        self._observer = observer
        self._admit = admit

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds a service's methods, as grpc's functions for handlers make them."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self.by_name[path] = _method(path, handler, self._observer, self._admit.get(path))

    def add_generic_rpc_handlers(self, handlers: Any) -> None:  # noqa: ANN401 - grpc's type
        """Generated code says everything twice."""


def _method(
    path: str,
    handler: Any,  # noqa: ANN401 - grpc's type has no attributes
    observer: Observer,
    admit: _Admit | None,
) -> Method:
    return Method(
        _observed(path, handler, observer),
        refuses=_refuses(path, admit, observer) if admit else None,
        reads=handler.request_streaming,
        lasts=handler.request_streaming or handler.response_streaming,
        parse=handler.request_deserializer,
        serialize=handler.response_serializer,
    )


def _observed(path: str, handler: Any, observer: Observer) -> _Run:  # noqa: ANN401 - see above
    """What a handler does, from the request's bytes to the answer's: both are observed, too."""
    reads, parse, run = handler.request_streaming, handler.request_deserializer, _run(handler)

    async def observe(request: Any, call: Call) -> bytes | None:  # noqa: ANN401 - bytes or None
        exchange = _begin(path, call, observer)
        status = "OK"
        try:
            if not reads:
                request = _parsed(parse, request)  # and its bytes are free
            return await run(request, call)
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Aborted as aborted:
            status = aborted.status.name
            raise
        except BaseException:
            status = "UNKNOWN"
            raise
        finally:
            exchange.end(status, failed=status != "OK")

    return observe


def _refuses(path: str, admit: _Admit, observer: Observer) -> Callable[[Call], Aborted | None]:
    """The same for a call that is refused before its message is read."""

    def refuse(call: Call) -> Aborted | None:
        try:
            admit(call)
        except GraftError as error:
            exchange = _begin(path, call, observer)
            refusal = aborted(error)
            exchange.end(refusal.status.name, failed=True)
            set_present(None)
            return refusal
        return None

    return refuse


def _run(handler: Any) -> _Run:  # noqa: ANN401 - see above
    unary, serialize = handler.unary_unary, handler.response_serializer

    async def answer(request: Any, call: Call) -> bytes:  # noqa: ANN401 - a message
        response: bytes = serialize(await unary(request, call))
        return response

    async def read_and_write(_: None, call: Call) -> None:
        answers = handler.stream_stream(call.requests(), call)
        if not inspect.isasyncgen(answers):
            await answers
            return
        async for one in answers:
            await call.write(one)

    if unary:
        return answer
    if handler.unary_stream:
        write: _Run = handler.unary_stream
        return write
    if handler.stream_stream:
        return read_and_write
    raise ValueError("expected a method with a stream both ways, or none in the request")


def _begin(path: str, call: Call, observer: Observer) -> Exchange:
    given = call.metadata
    request_id = given.get("x-request-id", "")
    exchange = observer.begin(
        "grpc",
        path.removeprefix("/"),
        request_id if request_id and is_request_id(request_id) else "",
        traceparent=given.get("traceparent", ""),
        tracestate=given.get("tracestate", ""),
    )
    call.trailing = (("x-request-id", exchange.request_id),)
    return exchange


def _parsed(parse: Callable[[bytes], Any], request: bytes) -> Any:  # noqa: ANN401 - a message
    try:
        return parse(request)
    except DecodeError as error:
        count_request("grpc", "INVALID_ARGUMENT")
        note_failure(InvalidRequest.code)
        detail = f"expected the message that this method takes, got {len(request)} bytes that are none"
        code = ("graft-error-code", InvalidRequest.code)
        raise Aborted(grpc.StatusCode.INVALID_ARGUMENT, detail, (code,)) from error
