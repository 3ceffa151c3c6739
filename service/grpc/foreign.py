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
        raise Aborted(grpc.StatusCode[failed.status], failed.detail, ())

    return grpc.unary_unary_rpc_method_handler(
        run, request_deserializer=message.FromString, response_serializer=lambda one: one.SerializeToString()
    )
