"""Paths of other people's interfaces: errors in their shape, `{"error": "..."}`, with the status that they give."""

import logging
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service.errors import GraftError, InternalError, InvalidRequest, RequestTooLarge
from service.exchange import note_failure
from service.http.disconnects import CLIENT_GONE, ClientGone
from service.settings import Settings
from service.tensors import Refusal, refusal_of

HTTP_STATUS: Final = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Canonical statuses over HTTP, as TensorFlow Serving's own server gives them."""

_log = logging.getLogger("graft.http")


def foreign_blueprint(name: str, settings: Settings) -> Blueprint:
    """A blueprint whose views may raise Refusals and GraftErrors.

    Args:
        name: of the blueprint.
        settings: for the limits that an error names.
    """
    blueprint = Blueprint(name, __name__)

    @blueprint.errorhandler(Refusal)
    def refused(refusal: Refusal) -> Response:
        note_failure(refusal.status)
        response = error(HTTP_STATUS[refusal.status], refusal.detail)
        if response.status_code in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            response.headers["Retry-After"] = "1"
        return response

    @blueprint.errorhandler(GraftError)
    def graft_error(failed: GraftError) -> Response:
        response = refused(refusal_of(failed))
        note_failure(failed.code)
        return response

    @blueprint.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        detail = f"expected a body of at most {settings.max_body_bytes} bytes, got {request.content_length or 'more'}"
        note_failure(RequestTooLarge.code)
        return error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)

    @blueprint.errorhandler(ParseException)
    def not_http(_: ParseException) -> Response:
        note_failure(InvalidRequest.code)
        return error(HTTPStatus.BAD_REQUEST, "expected a chunked body with the size in front of each chunk")

    @blueprint.errorhandler(HTTPException)
    def http_error(failed: HTTPException) -> Response:
        return error(HTTPStatus(failed.code or 500), failed.description or failed.name)

    @blueprint.errorhandler(ClientGone)
    def client_gone(_: ClientGone) -> Response:
        # the application's handler is only looked for behind the blueprint's own for Exception
        return Response(status=int(CLIENT_GONE))

    @blueprint.errorhandler(Exception)
    def unforeseen(_: Exception) -> Response:
        _log.exception("unforeseen error on %s", request.path)
        return graft_error(InternalError("an unforeseen error; the service's log knows more"))

    return blueprint


def error(status: HTTPStatus, detail: str) -> Response:
    """An error in the shape that TensorFlow Serving and Triton share."""
    response = jsonify(error=detail)
    response.status_code = status
    return response
