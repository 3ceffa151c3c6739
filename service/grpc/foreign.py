"""Methods of other people's services: reached by their full names, with errors in their words."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from service.errors import GraftError, InternalError
from service.exchange import note_failure
from service.grpc.call import Aborted, Call
from service.metrics import count_request
from service.tensors import Refusal, refusal_of

Answer = Callable[[Any, Call], Awaitable[Message]]

_log = logging.getLogger("graft.grpc")


def handlers(methods: Mapping[str, tuple[type[Message], Answer]]) -> Mapping[str, Any]:
    """The handlers of a service of unary methods.

    Args:
        methods: by name, the request's type and what answers it.
    """
    return {name: _handler(name, message, answer) for name, (message, answer) in methods.items()}


def _handler(name: str, message: type[Message], answer: Answer) -> Any:  # noqa: ANN401 - grpc's type has no attributes
    async def run(request: Message, call: Call) -> Message:
        try:
            response = await answer(request, call)
        except Refusal as refusal:
            raise _aborted(refusal, refusal.status) from refusal
        except GraftError as error:
            raise _aborted(refusal_of(error), error.code) from error
        except Exception as error:
            _log.exception("unforeseen error in %s", name)
            told = refusal_of(InternalError("an unforeseen error; the service's log knows more"))
            raise _aborted(told, InternalError.code) from error
        count_request("grpc", "OK")
        return response

    return grpc.unary_unary_rpc_method_handler(
        run, request_deserializer=message.FromString, response_serializer=lambda one: one.SerializeToString()
    )


def _aborted(refusal: Refusal, code: str) -> Aborted:
    """What ends a call with a refusal, which it counts."""
    note_failure(code)
    count_request("grpc", refusal.status)
    return Aborted(grpc.StatusCode[refusal.status], refusal.detail, ())
