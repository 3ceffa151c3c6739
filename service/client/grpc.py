"""The client over gRPC: graft.v1.ImageClassifier/Classify."""

import time
from collections.abc import Sequence
from typing import Any, Final

from service.client.base import ActivationMap, Ask, Client, Prediction, Refused, Retry, Unanswered
from service.errors import BY_CODE, DeadlineExceeded, GraftError, ImageError, Overloaded, Unavailable

_LONGEST_ASKED_S: Final = 60.0
_BUSY_CODES: Final = (Overloaded.code, Unavailable.code, DeadlineExceeded.code, "CANCELLED")


class GrpcClient(Client):
    """Talks to graft.v1.ImageClassifier on one connection, which gRPC shares among all threads.

    Args:
        address: host and port, such as "localhost:8500".
        timeout_s: seconds until a call is given up, all tries together.
        retry: how to try again after UNAVAILABLE, OVERLOADED or DEADLINE_EXCEEDED.
    """

    def __init__(self, address: str, timeout_s: float = 60.0, retry: Retry | None = None) -> None:
        super().__init__(timeout_s, retry or Retry())
        import grpc  # noqa: PLC0415 - HTTP users do not pay for it

        from protos import classifier_pb2, classifier_pb2_grpc  # noqa: PLC0415

        self._grpc: Any = grpc
        self._messages = classifier_pb2
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # a service that was restarted is found again within a second; gRPC's own waits grow up to two minutes
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = classifier_pb2_grpc.ImageClassifierStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._address = address

    def _hang_up(self) -> None:
        """See Client."""
        self._channel.close()

    def _try(self, images: Sequence[tuple[str, bytes]], ask: Ask, timeout_s: float) -> list[Prediction]:
        """See Client."""
        messages, end = self._messages, time.monotonic() + timeout_s
        request = messages.ClassifyRequest(
            model=ask.model,
            version=ask.version,
            label=ask.label,
            top_k=ask.top_k,
            priority=messages.BULK if ask.bulk else messages.INTERACTIVE,
            activation_map=ask.activation_map,
        )
        for _, data in images:
            request.images.add(data=data)  # given to the constructor, each would be copied three times
        try:
            answer = self._stub.Classify(request, timeout=timeout_s)
        except ValueError as error:  # gRPC's word for a channel that was closed
            raise Unanswered("the client was closed") from error
        except self._grpc.RpcError as error:
            code, detail, asked_s = self._read_error(error)
            # where every image has failed, the first one's error is the call's; the others' are not told, so they are
            # asked about one by one. A request that is wrong itself is not an image's error.
            if issubclass(BY_CODE.get(code, GraftError), ImageError):
                failed = [Prediction(images[0][0], error=f"{code}: {detail}")]
                for image in images[1:]:
                    failed += self._try([image], ask, max(0.001, end - time.monotonic()))
                return failed
            if code in _BUSY_CODES:
                overloaded = code == Overloaded.code
                raise Unanswered(f"{self._address}: {code}: {detail}", asked_s, overloaded=overloaded) from error
            raise Refused(f"{code}: {detail}", code) from error
        return [
            Prediction(filename, error=f"{result.error.code}: {result.error.detail}")
            if result.HasField("error")
            else Prediction(
                filename,
                result.label,
                result.score,
                result.unknown,
                [(one.label, one.score) for one in result.top],
                answer.model,
                answer.version,
                activation_map=_activation_map(result.activation_map) if result.HasField("activation_map") else None,
            )
            for result, (filename, _) in zip(answer.results, images, strict=True)
        ]

    def _read_error(self, error: Any) -> tuple[str, str, float]:  # noqa: ANN401 - grpc.RpcError, not imported here
        """Code, detail, and the seconds that the service asks to wait."""
        metadata = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
        pushback = metadata.get("grpc-retry-pushback-ms", "")
        asked_s = min(_LONGEST_ASKED_S, int(pushback) / 1000) if pushback.isdecimal() else 0.0
        return metadata.get("graft-error-code", error.code().name), str(error.details()), asked_s


def _activation_map(found: Any) -> ActivationMap:  # noqa: ANN401 - a message, not imported here
    values, region = list(found.values), found.region_px
    rows = [values[start : start + found.width] for start in range(0, len(values), found.width)]
    return ActivationMap(rows, region.left, region.top, region.width, region.height)
