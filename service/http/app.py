"""The Flask application: paths, parameters and answers of the HTTP interface."""

import logging
import time
from dataclasses import replace
from http import HTTPStatus

from flask import Flask, Response, jsonify, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service import admin, errors
from service.classifier import Classifier
from service.exchange import observe_answer
from service.http import foreign, open_inference, reply, tensorflow_serving
from service.http.admin import create_admin
from service.http.body import read_uploads
from service.http.disconnects import CLIENT_GONE, ClientGone
from service.http.documentation import add_documentation
from service.http.openapi import document
from service.http.page import add_page
from service.http.terms import read_asked, read_terms, reading
from service.http.waiting import answer_of, kept_back
from service.metrics import CONTENT_TYPE, expose
from service.readiness import Readiness, describe
from service.settings import LISTENING, Settings

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
        terms = read_terms(settings.request_timeout_s)
        asked = read_asked(terms)
        # what has no chance is refused before its images are read, which is most of what it would cost
        with kept_back():
            classifier.admit(asked)
        with reading(terms, settings.request_timeout_s):
            uploads = read_uploads(request, settings.max_images)
        read = time.monotonic()
        asked = replace(asked, images=[upload.image for upload in uploads], timeout_s=terms.left_s)
        answer = answer_of(classifier, asked)
        observe_answer("http", time.monotonic() - read, answer)
        return _response(reply.answered(answer, [upload.filename for upload in uploads]))

    if admin.is_possible(settings):
        app.register_blueprint(create_admin(classifier, settings))
    add_page(app, classifier, settings)
    add_documentation(app, document.describe(reply.STATUS, settings))

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
        return _response(reply.refused(error))

    @app.errorhandler(ClientGone)
    def client_gone(_: ClientGone) -> Response:
        return Response(status=int(CLIENT_GONE))

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
        if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = dict(error.get_headers())["Allow"]
        return response

    @app.errorhandler(Exception)
    def unforeseen(_: Exception) -> Response:
        _log.exception("unforeseen error on %s", request.path)
        return graft_error(errors.InternalError("an unforeseen error; the service's log knows more"))

    return app


def _refused(error: HTTPException) -> Response:
    """What no view has seen, in the shape of the protocol whose path it is."""
    status = HTTPStatus(error.code or 500)
    if request.path.startswith(tensorflow_serving.PREFIX):
        return foreign.error(HTTPStatus.BAD_REQUEST, tensorflow_serving.malformed().detail)
    if request.path.startswith(open_inference.PREFIX):
        return foreign.error(status, error.description or error.name)
    return _response(reply.problem(status, error.name.upper().replace(" ", "_"), error.description or ""))


def _response(answer: reply.Reply) -> Response:
    return Response(answer.body, answer.status, answer.headers, content_type=answer.content_type)
