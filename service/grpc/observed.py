"""Every gRPC call becomes an exchange: its id is honoured or made, and goes back as metadata behind the answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from service.errors import InvalidRequest
from service.exchange import Exchange, Observer, is_request_id, note_failure
from service.metrics import count_request

_WRAP: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
_Call = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class ObservedCalls(grpc.aio.ServerInterceptor):
    """Wraps the methods of a server. Left alone are those that are no coroutines, which is reflection's only one.

    Args:
        observer: this process's.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._methods: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - one of grpc's handlers
        """Called by grpc for every call."""
        method = str(handler_call_details.method)
        known = self._methods.get(method)
        if known is None:
            known = await continuation(handler_call_details)
            if known is not None:  # else there is no such method
                known = self._methods[method] = self._wrap(method, known)
        return known

    def _wrap(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - grpc's types of these are private
        kind = handler.request_streaming, handler.response_streaming
        call: _Call = next(
            one
            for one in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            if one is not None
        )
        if not inspect.iscoroutinefunction(call):
            return handler
        # a single answer is made bytes here, so that its encoding is observed, too; a single request is read here, as
        # grpc.aio would tell a client of Python's classes that its bytes are no message
        serialize = None if handler.response_streaming else handler.response_serializer
        parse = None if handler.request_streaming else handler.request_deserializer

        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401 - messages
            exchange = self._begin(method, context)
            status = "OK"
            try:
                response = await call(await _parsed(parse, request, context) if parse else request, context)
                return serialize(response) if serialize else response
            except asyncio.CancelledError:
                status = "CANCELLED"
                raise
            except BaseException:
                aborted = context.code()
                status = aborted.name if isinstance(aborted, grpc.StatusCode) else "UNKNOWN"
                raise
            finally:
                exchange.end(status, failed=status != "OK")

        return _WRAP[kind](
            run,
            handler.request_deserializer if parse is None else None,
            handler.response_serializer if serialize is None else None,
        )

    def _begin(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Exchange:
        given = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        request_id = given.get("x-request-id", "")
        exchange = self._observer.begin(
            "grpc",
            method.removeprefix("/"),
            request_id if is_request_id(request_id) else "",
            traceparent=given.get("traceparent", ""),
            tracestate=given.get("tracestate", ""),
        )
        context.set_trailing_metadata((("x-request-id", exchange.request_id),))
        return exchange


async def _parsed(parse: Callable[[bytes], Any], request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401 - a message
    try:
        return parse(request)
    except DecodeError:
        count_request("grpc", "INVALID_ARGUMENT")
        note_failure(InvalidRequest.code)
        metadata = (*context.trailing_metadata(), ("graft-error-code", InvalidRequest.code))
        detail = f"expected the message that this method takes, got {len(request)} bytes that are none"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, detail, metadata)
