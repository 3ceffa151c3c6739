"""/admin described, which a service with an admin token has."""

from http import HTTPStatus
from typing import Final

from service.http.openapi.parts import URL, Json, answer, closed, operation, parameter, problems, reference

_MODEL: Final = parameter("name", "The model.", {"type": "string"}, "pets", where="path")


def paths() -> Json:
    """Its paths."""
    refused = problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    policy = answer("The policy as it is now.", reference("Policy"))
    curl = f"curl -H 'Authorization: Bearer TOKEN' {URL}/admin/models/pets"

    def admin(name: str, summary: str, more: str, body: str = "") -> Json:
        media = {"application/json": {"schema": reference(body)}}
        extra: Json = {"requestBody": {"required": body == "PolicyChange", "content": media}} if body else {}
        return operation(
            "Admin", name, summary, curl + more, {"200": policy} | refused, security=[{"token": []}], **extra
        )

    return {
        "/admin/models/{name}": {
            "parameters": [_MODEL],
            "get": admin("showPolicy", "Which versions are wanted", ""),
            "patch": admin(
                "changePolicy",
                "Change which versions are wanted: a JSON merge patch (RFC 7396)",
                """ -X PATCH -d '{"labels": {"canary": 2}, "canary_share": 0.1}'""",
                "PolicyChange",
            ),
        },
        "/admin/models/{name}/rollback": {
            "parameters": [_MODEL],
            "post": admin(
                "rollback", "Back to the version before, or to one that is named", "/rollback -X POST", "Rollback"
            ),
        },
    }


def schemas() -> Json:
    """The components that they speak of."""
    version = {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**18}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "Policy": closed(
            versions=reference("Versions"),
            labels={"type": "object", "additionalProperties": version},
            canary_share=score,
        ),
        "PolicyChange": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "versions": {"oneOf": [reference("Versions"), {"type": "null"}]},
                "labels": {
                    "type": ["object", "null"],
                    "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9._-]{0,62}$"},
                    "additionalProperties": {"oneOf": [version, {"type": "null"}]},
                },
                "canary_share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            },
        },
        "Versions": {
            "oneOf": [
                {"title": "The latest N", **closed(latest=version)},
                {"title": "These", **closed(specific={"type": "array", "minItems": 1, "items": version})},
            ]
        },
        "Rollback": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"to": {"type": "integer", "description": "A version; 0 for the one before."}},
        },
    }
