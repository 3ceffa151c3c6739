"""The Flask application: paths, parameters and answers of the HTTP interface."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from protos.classifier_pb2 import ActivationMap, Result
from service import errors
from service.classifier import MAX_TOP_K, Answer, Classifier, Request
from service.exchange import note_failure, observe_answer
from service.http import foreign, open_inference, tensorflow_serving
from service.http.admin import create_admin
from service.http.body import Upload, read_uploads
from service.http.disconnects import ClientGone
from service.http.documentation import add_documentation
from service.http.openapi import document
from service.http.page import add_page
from service.http.terms import read_terms, reading, whole_number
from service.http.waiting import answer_of
from service.metrics import CONTENT_TYPE, expose
from service.readiness import Readiness, describe
from service.settings import LISTENING, Settings

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

_RETRY_AFTER_S: Final = {HTTPStatus.TOO_MANY_REQUESTS: "1", HTTPStatus.SERVICE_UNAVAILABLE: "1"}
_CLIENT_GONE: Final = 499
"""Nobody reads this status but the metrics; it is what nginx says in this case."""
_log = logging.getLogger("graft.http")


def create_app(classifier: Classifier, readiness: Readiness, settings: Settings) -> Flask:
    """Builds the application on a classifier whose reactor is this process's gevent hub."""
    app = Flask("graft", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_FORM_PARTS"] = settings.max_images + 10
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it

    def is_ready() -> bool:
        # ready is the service, not this front alone: clients of gRPC must find somebody, too
        return readiness.ready and (settings.run_dir / f"grpc{LISTENING}").exists()

    app.register_blueprint(tensorflow_serving.blueprint(classifier, settings))
    app.register_blueprint(open_inference.blueprint(classifier, settings, is_ready))

    @app.post("/classify")
    def classify() -> Response:
        top_k = _integer("top_k", 5, low=1, high=MAX_TOP_K)
        pixels = _integer("pixels_sha256", 0, low=0, high=1)
        activation_map = _integer("activation_map", 0, low=0, high=1)
        version = _integer("version", 0, low=0, high=2**63 - 1)
        terms = read_terms(settings.request_timeout_s)
        asked = Request(
            (),
            request.args.get("model", ""),
            version,
            top_k,
            bool(pixels),
            terms.left_s,
            request.args.get("label", ""),
            terms.request_id,
            activation_map=bool(activation_map),
            bulk=terms.bulk,
        )
        # what has no chance is refused before its images are read, which is most of what it would cost
        classifier.admit(asked)
        with reading(terms, settings.request_timeout_s):
            uploads = read_uploads(request)
        read = time.monotonic()
        asked = replace(asked, images=[upload.image for upload in uploads], timeout_s=terms.left_s)
        answer = answer_of(classifier, asked)
        observe_answer("http", time.monotonic() - read, answer)
        return _answer(answer, uploads)

    if settings.admin_token_file != Path():
        app.register_blueprint(create_admin(classifier, settings))
    add_page(app, classifier, settings)
    add_documentation(app, document.describe(STATUS, settings))

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(live=True)

    @app.get("/readyz")
    def readyz() -> Response:
        routes = classifier.routes
        ready = is_ready()
        response = jsonify(ready=ready, draining=routes.draining, models=describe(routes), grpc_port=settings.grpc_port)
        response.status_code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(expose(classifier.routes), content_type=CONTENT_TYPE)

    @app.errorhandler(errors.GraftError)
    def graft_error(error: errors.GraftError) -> Response:
        response = _problem(STATUS[type(error)], error.code, error.detail)
        if isinstance(error, errors.Overloaded):
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        return response

    @app.errorhandler(ClientGone)
    def client_gone(_: ClientGone) -> Response:
        return Response(status=_CLIENT_GONE)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        limit = f"expected a body of at most {settings.max_body_bytes} bytes and {settings.max_images} images"
        return graft_error(errors.RequestTooLarge(f"{limit}, got {request.content_length or 'more'} bytes"))

    @app.errorhandler(ParseException)
    def not_http(_: ParseException) -> Response:
        return graft_error(errors.InvalidRequest("expected a chunked body with the size in front of each chunk"))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = _refused(error)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unforeseen(_: Exception) -> Response:
        _log.exception("unforeseen error on %s", request.path)
        return graft_error(errors.InternalError("an unforeseen error; the service's log knows more"))

    return app


def _refused(error: HTTPException) -> Response:
    """What no view has seen, in the shape of the protocol whose path it is."""
    status = HTTPStatus(error.code or 500)
    if request.path.startswith(open_inference.PREFIX):
        return foreign.error(status, error.description or error.name)
    return _problem(status, error.name.upper().replace(" ", "_"), error.description or "")


def _integer(name: str, default: int, *, low: int, high: int) -> int:
    text = request.args.get(name)
    return default if text is None else whole_number(name, text, low=low, high=high)


def _answer(answer: Answer, uploads: Sequence[Upload]) -> Response:
    results = [_result(result, upload) for result, upload in zip(answer.results, uploads, strict=True)]
    response = jsonify(model=answer.model, version=answer.version, results=results)
    if all(result.HasField("error") for result in answer.results):
        code = answer.results[0].error.code
        note_failure(code)
        status = STATUS[errors.BY_CODE[code]]
        response.status_code = status
        _add_headers(response, status)
    return response


def _result(result: Result, upload: Upload) -> dict[str, Any]:
    named = {"filename": upload.filename} if upload.filename else {}
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


def _problem(status: HTTPStatus, code: str, detail: str) -> Response:
    """A problem document, RFC 9457."""
    response = jsonify(type="about:blank", title=status.phrase, status=status, code=code, detail=detail)
    note_failure(code)
    response.content_type = "application/problem+json"
    response.status_code = status
    _add_headers(response, status)
    return response


def _add_headers(response: Response, status: HTTPStatus) -> None:
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in _RETRY_AFTER_S:
        response.headers["Retry-After"] = _RETRY_AFTER_S[status]
