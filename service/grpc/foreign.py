"""Methods of other people's services: reached by their full names, with errors in their words."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from service.errors import GraftError, InternalError
from service.exchange import note_failure
from service.metrics import count_request
from service.tensors import Refusal, refusal_of

Context = grpc.aio.ServicerContext[Any, Any]
Method = tuple[type[Message], Callable[[Any, Context], Awaitable[Message]]]
"""The request's type, and what answers it."""

_log = logging.getLogger("graft.grpc")


def service(name: str, methods: Mapping[str, Method]) -> grpc.GenericRpcHandler:
    """A gRPC service of unary methods.

    Args:
        name: with its package, such as "tensorflow.serving.PredictionService".
        methods: by name.
    """

    def handler(message: type[Message], answer: Callable[[Any, Context], Awaitable[Message]]) -> Any:  # noqa: ANN401
        async def call(request: Message, context: Context) -> Message:
            try:
                response = await answer(request, context)
            except Refusal as refusal:
                failed = refusal
                note_failure(refusal.status)
            except GraftError as error:
                failed = refusal_of(error)
                note_failure(error.code)
            except Exception:  # noqa: BLE001 - the last resort; logged with its trace
                _log.exception("unforeseen error in %s", name)
                failed = refusal_of(InternalError("an unforeseen error; the service's log knows more"))
                note_failure(InternalError.code)
            else:
                count_request("grpc", "OK")
                return response
            count_request("grpc", failed.status)
            await context.abort(grpc.StatusCode[failed.status], failed.detail)
            raise AssertionError("abort always raises. This is a bug.")

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=message.FromString, response_serializer=lambda one: one.SerializeToString()
        )

    handlers = {method: handler(message, answer) for method, (message, answer) in methods.items()}
    return grpc.method_handlers_generic_handler(name, handlers)
