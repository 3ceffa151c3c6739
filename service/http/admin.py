"""`/admin`: who has the token may say which versions are served. Writes the same file as `python -m service.models`."""

import hmac
import json
from typing import Any

import gevent
from flask import Blueprint, Response, request

from service.classifier import Classifier
from service.errors import InternalError, InvalidRequest, Unauthenticated
from service.policy import BrokenPolicy, Change, change_policy, format_policy, merge_policy
from service.settings import Settings, read_token


def create_admin(classifier: Classifier, settings: Settings) -> Blueprint:
    """Builds the paths under /admin. They answer to `Authorization: Bearer TOKEN` only.

    Args:
        classifier: knows which versions were refused.
        settings: where the models are, and the token.
    """
    admin = Blueprint("admin", __name__, url_prefix="/admin/models")

    @admin.before_request
    def authenticate() -> None:
        try:
            token = read_token(settings.admin_token_file)  # each time, so that it can be changed while we run
        except ValueError as error:
            raise InternalError("the admin token cannot be read; the service's log knows more") from error
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise Unauthenticated("expected the header 'Authorization: Bearer' with the admin token")

    @admin.get("/<name>")
    def show(name: str) -> Response:
        return apply(name, lambda policy, _: policy)

    @admin.patch("/<name>")
    def patch(name: str) -> Response:
        changes = _body()
        return apply(name, lambda policy, _: merge_policy(policy, changes))

    @admin.post("/<name>/rollback")
    def rollback(name: str) -> Response:
        body = _body()
        to = body.pop("to", 0)
        if body or isinstance(to, bool) or not isinstance(to, int):
            raise InvalidRequest('expected no body or {"to": N}, got something else')
        return apply(name, lambda policy, servable: policy.rolled_back(servable, to))

    def apply(name: str, change: Change) -> Response:
        known = classifier.routes.models.get(name)
        refused = (
            [number for number, one in known.versions.items() if one.state == "END" and one.error] if known else []
        )
        try:
            # in a thread: a disk may take its time, and this front has one thread for everybody
            _, after = gevent.get_hub().threadpool.apply(change_policy, (settings.models, name, change, refused))
        except BrokenPolicy as error:
            raise InternalError(str(error)) from error
        return Response(format_policy(after), content_type="application/json")

    return admin


def _body() -> dict[str, Any]:
    text = request.get_data()
    try:
        document: Any = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"expected a JSON object, got malformed JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("expected a JSON object, got JSON of another kind")
    return document
