"""`/admin`: who has the token may say which versions are served. Writes the same file as `python -m service.models`."""

import json
from typing import Any

import gevent
from flask import Blueprint, Response, request

from service.admin import authenticate, change
from service.classifier import Classifier
from service.errors import InvalidRequest
from service.policy import Change, format_policy, merge_policy
from service.settings import Settings


def create_admin(classifier: Classifier, settings: Settings) -> Blueprint:
    """Builds the paths under /admin. They answer to `Authorization: Bearer TOKEN` only.

    Args:
        classifier: knows which versions were refused.
        settings: where the models are, and the token.
    """
    admin = Blueprint("admin", __name__, url_prefix="/admin/models")

    @admin.before_request
    def authenticated() -> None:
        authenticate(request.headers.get("Authorization", ""), settings)

    @admin.get("/<name>")
    def show(name: str) -> Response:
        return apply(name, lambda policy, _: policy)

    @admin.patch("/<name>")
    def patch(name: str) -> Response:
        changes = _body(required=True)
        return apply(name, lambda policy, _: merge_policy(policy, changes))

    @admin.post("/<name>/rollback")
    def rollback(name: str) -> Response:
        body = _body()
        to = body.pop("to", 0)
        if body or isinstance(to, bool) or not isinstance(to, int):
            raise InvalidRequest('expected no body or {"to": N}, got something else')
        return apply(name, lambda policy, servable: policy.rolled_back(servable, to))

    def apply(name: str, wish: Change) -> Response:
        # in a thread: a disk may take its time, and this front has one thread for everybody
        after = gevent.get_hub().threadpool.apply(change, (classifier.routes, settings, name, wish))
        return Response(format_policy(after), content_type="application/json")

    return admin


def _body(*, required: bool = False) -> dict[str, Any]:
    text = request.get_data()
    try:
        document: Any = json.loads(text) if text or required else {}
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"expected a JSON object, got malformed JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("expected a JSON object, got JSON of another kind")
    return document
