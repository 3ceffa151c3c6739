"""What our own interface answers over HTTP, whoever writes it to the connection: Flask or service/http/plain.py."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from protos.classifier_pb2 import ActivationMap, Result
from service import errors
from service.exchange import note_failure
from service.request import Answer

STATUS: Final[dict[type[errors.GraftError], HTTPStatus]] = {
    errors.EmptyImage: HTTPStatus.BAD_REQUEST,
    errors.InvalidBase64: HTTPStatus.BAD_REQUEST,
    errors.UnsupportedFormat: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.CorruptImage: HTTPStatus.BAD_REQUEST,
    errors.ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.PoisonImage: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.RequestTimeout: HTTPStatus.REQUEST_TIMEOUT,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.NoActivationMap: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The HTTP status of every error that a client can meet."""

_JSON: Final = "application/json"
_RETRY_AFTER_S: Final = {HTTPStatus.TOO_MANY_REQUESTS: "1", HTTPStatus.SERVICE_UNAVAILABLE: "1"}
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is written.

    Attributes:
        status: of HTTP.
        body: all of it.
        content_type: what the body is.
        headers: others that belong to this answer.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = _JSON
    headers: Sequence[tuple[str, str]] = ()


def answered(answer: Answer, filenames: Sequence[str]) -> Reply:
    """The classifier's answer; when all images failed, the status is that of the first.

    Args:
        answer: the classifier's.
        filenames: what the client calls each image; may be empty.
    """
    results = [_result(result, filename) for result, filename in zip(answer.results, filenames, strict=True)]
    body = _body({"model": answer.model, "version": answer.version, "results": results})
    if not all(result.HasField("error") for result in answer.results):
        return Reply(HTTPStatus.OK, body)
    code = answer.results[0].error.code
    note_failure(code)
    status = STATUS[errors.BY_CODE[code]]
    return Reply(status, body, headers=_headers(status))


def refused(error: errors.GraftError) -> Reply:
    """A request that failed as a whole."""
    retry_after_s = error.retry_after_s if isinstance(error, errors.Overloaded) else 0
    return problem(STATUS[type(error)], error.code, error.detail, retry_after_s)


def problem(status: HTTPStatus, code: str, detail: str, retry_after_s: float = 0) -> Reply:
    """A problem document, RFC 9457.

    Args:
        status: of HTTP.
        code: a word from the error table, or HTTP's own.
        detail: for the client.
        retry_after_s: when another try makes sense, where that is known.
    """
    note_failure(code)
    document = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    return Reply(status, _body(document), "application/problem+json", _headers(status, retry_after_s))


def _body(document: dict[str, Any]) -> bytes:
    return f"{_encode(document)}\n".encode("ascii")


def _headers(status: HTTPStatus, retry_after_s: float = 0) -> list[tuple[str, str]]:
    headers = []
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if status in _RETRY_AFTER_S:
        headers.append(("Retry-After", str(math.ceil(retry_after_s)) if retry_after_s > 1 else _RETRY_AFTER_S[status]))
    return headers


def _result(result: Result, filename: str) -> dict[str, Any]:
    named = {"filename": filename} if filename else {}
    if result.HasField("error"):
        return named | {"error": {"code": result.error.code, "detail": result.error.detail}}
    timing = result.timing_ms
    digest = {"pixels_sha256": result.pixels_sha256} if result.pixels_sha256 else {}
    seen = {"activation_map": _activation_map(result.activation_map)} if result.HasField("activation_map") else {}
    return {
        **named,
        "label": result.label,
        "score": round(result.score, 7),  # float32 has no more digits
        "unknown": result.unknown,
        "top": [{"label": one.label, "score": round(one.score, 7)} for one in result.top],
        "timing_ms": {
            "queue": round(timing.queue, 3),
            "decode": round(timing.decode, 3),
            "inference": round(timing.inference, 3),
        },
        "batch_size": timing.batch_size,
        **digest,
        **seen,
    }


def _activation_map(found: ActivationMap) -> dict[str, Any]:
    """Rows of numbers, as both a browser's canvas and numpy.array take them, and the rectangle that they cover."""
    values = [round(value, 4) for value in found.values]
    region = found.region_px
    return {
        "values": [values[start : start + found.width] for start in range(0, len(values), found.width)],
        "region_px": {"left": region.left, "top": region.top, "width": region.width, "height": region.height},
    }
