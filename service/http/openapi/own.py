"""Paths that are Graft's own, described: classification, state, pages, and /admin."""

from http import HTTPStatus
from typing import Final

from service.classifier import MAX_TOP_K
from service.errors import ImageError, ModelNotFound, RequestTimeout, Unauthenticated
from service.http.openapi.parts import (
    TERMS,
    Json,
    Statuses,
    answer,
    by_status,
    operation,
    parameter,
    problems,
    reference,
    retry_header,
)
from service.settings import Settings

_URL: Final = "http://localhost:8501"
_FLAG: Final[Json] = {"type": "integer", "enum": [0, 1], "default": 0}
_WHOLE_REQUEST: Final = (RequestTimeout, ModelNotFound)
"""Errors that are never an image's: they are found before there are images."""

_MODEL: Final = parameter("name", "The model.", {"type": "string"}, "pets", where="path")


def paths(statuses: Statuses, settings: Settings) -> Json:
    """Every path of Graft's own that this service has."""
    found = {
        "/classify": {"post": _classify(statuses, settings)},
        "/healthz": {
            "get": operation(
                "State",
                "healthz",
                "Whether the process answers",
                f"curl {_URL}/healthz",
                {"200": answer("It does.", _closed(live={"const": True}))},
            )
        },
        "/readyz": {"get": _readyz()},
        "/metrics": {
            "get": operation(
                "State",
                "metrics",
                "Counters and histograms for Prometheus",
                f"curl {_URL}/metrics",
                {"200": answer("Prometheus' text format, version 0.0.4.", {"type": "string"}, "text/plain")},
            )
        },
        "/reports/{model}/{version}/": {"get": _report()},
    }
    for path, kind, name, text in (
        ("/", "text/html", "page", "The page: drop an image, see what it is"),
        ("/docs", "text/html", "docs", "This description, to read"),
        ("/openapi.json", "application/json", "openapi", "This description, for programs"),
        ("/page.css", "text/css", "style", "How the pages look"),
        ("/page.js", "text/javascript", "script", "What the page does"),
        ("/docs.css", "text/css", "docsStyle", "How the description looks"),
    ):
        schema: Json = {"type": "object"} if kind == "application/json" else {"type": "string"}
        found[path] = {
            "get": operation("Pages", name, text, f"curl {_URL}{path}", {"200": answer("The file.", schema, kind)})
        }
    return found


def admin_paths() -> Json:
    """The paths of a service with an admin token."""
    refused = problems(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    policy = answer("The policy as it is now.", reference("Policy"))
    curl = f"curl -H 'Authorization: Bearer TOKEN' {_URL}/admin/models/pets"

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


def schemas(statuses: Statuses, settings: Settings) -> Json:
    """The components that these paths speak of."""
    number = {"type": "number"}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    text = {"type": "string"}
    codes = [error.code for error in statuses if error is not Unauthenticated]
    own = [error.code for error in statuses if issubclass(error, ImageError)]
    return {
        "Classify": {
            "type": "object",
            "required": ["images"],
            "properties": {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": settings.max_images,
                    "items": {
                        "type": "object",
                        "required": ["b64"],
                        "properties": {
                            "b64": {**text, "format": "image-base64", "description": "The image file in base64."},
                            "filename": {**text, "description": "Comes back with the image's result."},
                        },
                    },
                }
            },
        },
        "Answer": {
            "type": "object",
            "required": ["model", "version", "results"],
            "properties": {
                "model": text,
                "version": {"type": "integer"},
                "results": {
                    "type": "array",
                    "description": "One for every image, in their order. One bad image never spoils the others.",
                    "items": {"oneOf": [reference("Result"), reference("FailedResult")]},
                },
            },
        },
        "Result": {
            "type": "object",
            "required": ["label", "score", "unknown", "top", "timing_ms", "batch_size"],
            "properties": {
                "filename": {**text, "description": "As it came, where it did."},
                "label": {**text, "description": "The most probable label."},
                "score": {**score, "description": "Its probability."},
                "unknown": {"type": "boolean", "description": "The score is below the version's unknown threshold."},
                "top": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["label", "score"],
                        "properties": {"label": text, "score": score},
                    },
                },
                "timing_ms": {
                    "type": "object",
                    "required": ["queue", "decode", "inference"],
                    "properties": {"queue": number, "decode": number, "inference": number},
                },
                "batch_size": {"type": "integer", "description": "Images that were computed together with this one."},
                "pixels_sha256": {**text, "description": "SHA-256 of the decoded pixels, where asked for."},
                "activation_map": {
                    "type": "object",
                    "description": "Where the model saw the label, where asked for: rows of 0 to 1 over a region.",
                    "required": ["values", "region_px"],
                    "properties": {
                        "values": {"type": "array", "items": {"type": "array", "items": score}},
                        "region_px": {
                            "type": "object",
                            "required": ["left", "top", "width", "height"],
                            "properties": {side: {"type": "integer"} for side in ("left", "top", "width", "height")},
                        },
                    },
                },
            },
        },
        "FailedResult": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "filename": text,
                "error": {
                    "type": "object",
                    "required": ["code", "detail"],
                    "properties": {
                        "code": {"enum": codes, "description": f"The image's own faults: {', '.join(own)}."},
                        "detail": {**text, "description": "What was expected and what came."},
                    },
                },
            },
        },
        "Problem": {
            "type": "object",
            "description": "A problem document, RFC 9457.",
            "required": ["type", "title", "status", "code", "detail"],
            "properties": {
                "type": {"const": "about:blank"},
                "title": {**text, "description": "The status in words."},
                "status": {"type": "integer"},
                "code": {**text, "description": "What went wrong, for programs."},
                "detail": {**text, "description": "What was expected and what came."},
            },
        },
        "State": {
            "type": "object",
            "required": ["ready", "draining", "models", "grpc_port"],
            "properties": {
                "ready": {"type": "boolean", "description": "Every model that is live has just answered an image."},
                "draining": {"type": "boolean"},
                "grpc_port": {"type": "integer"},
                "models": {"type": "object", "additionalProperties": reference("ModelState")},
            },
        },
        "ModelState": {
            "type": "object",
            "required": ["live", "versions"],
            "properties": {
                "live": {"type": "integer", "description": "The version that answers by default; 0 for none."},
                "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
                "canary_share": score,
                "error": text,
                "versions": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["state"],
                        "properties": {
                            "state": {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                            "engine": text,
                            "engines": {"type": "integer", "description": "Its processes."},
                            "error": {**text, "description": "Why it is not served."},
                        },
                    },
                },
            },
        },
    }


def admin_schemas() -> Json:
    """The components that the paths of /admin speak of."""
    version = {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**18}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    return {
        "Policy": _closed(
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
                {"title": "The latest N", **_closed(latest=version)},
                {"title": "These", **_closed(specific={"type": "array", "minItems": 1, "items": version})},
            ]
        },
        "Rollback": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"to": {"type": "integer", "description": "A version; 0 for the one before."}},
        },
    }


def _closed(**properties: Json) -> Json:
    return {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }


def _classify(statuses: Statuses, settings: Settings) -> Json:
    image = {"schema": {"type": "string", "format": "binary"}}
    files = {"type": "array", "minItems": 1, "maxItems": settings.max_images, "items": image["schema"]}
    responses: Json = {"200": answer("At least one image was classified.", reference("Answer"), example=_EXAMPLE)}
    for status, errors in sorted(by_status(statuses).items()):
        responses |= problems(status)
        codes = ", ".join(one.code for one in errors if one not in _WHOLE_REQUEST)
        if codes:  # then it may be an answer, all of whose images failed
            responses[str(int(status))] = {
                "description": f"All images failed, the first with this status ({codes}), or the request itself did: "
                "a problem document.",
                "headers": retry_header(status),
                "content": {
                    "application/json": {"schema": reference("Answer")},
                    "application/problem+json": {"schema": reference("Problem")},
                },
            }
    return operation(
        "Classification",
        "classify",
        "What is on images",
        f"curl --data-binary @photo.jpg '{_URL}/classify?top_k=3'\n"
        f"curl -F file=@a.jpg -F file=@b.jpg '{_URL}/classify?model=pets'\n"
        f"""curl -H 'Content-Type: application/json' -d '{{"images": [{{"b64": "'$(base64 -w0 photo.jpg)'"}}]}}' """
        f"{_URL}/classify",
        responses,
        description=f"JPEG, PNG, WebP, GIF, BMP or TIFF; at most {settings.max_images} images of "
        f"{settings.max_image_bytes} bytes each and {settings.max_body_bytes} bytes in all.",
        parameters=[
            parameter("model", "The model. Not needed where there is one.", {"type": "string"}, "pets"),
            parameter(
                "version",
                "The version; 0 for the one that is live. Not together with a label.",
                {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0},
            ),
            parameter("label", "The version that has this label, such as `stable` or `canary`.", {"type": "string"}),
            parameter(
                "top_k",
                "How many labels to give, the most probable first.",
                {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": 5},
                3,
            ),
            parameter("pixels_sha256", "1: also give the digest of the pixels that the model saw.", _FLAG),
            parameter("activation_map", "1: also say where the model saw the label.", _FLAG),
            *TERMS,
        ],
        requestBody={
            "required": True,
            "content": {
                "image/*": image,
                "application/octet-stream": image,
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {**files, "description": "Files; the fields' names are free."}},
                    }
                },
                "application/json": {"schema": reference("Classify")},
            },
        },
    )


def _readyz() -> Json:
    return operation(
        "State", "readyz", "Whether the service can answer, and what every version is doing",
        f"curl {_URL}/readyz",
        {
            "200": answer("Ready.", reference("State")),
            "503": answer("Not ready: loading, draining, or no model answers.", reference("State")),
        },
    )  # fmt: skip


def _report() -> Json:
    return operation(
        "Pages", "report", "The training report of a version",
        f"curl {_URL}/reports/pets/1/",
        {"200": answer("The report.", {"type": "string"}, "text/html")} | problems(HTTPStatus.NOT_FOUND),
        parameters=[
            parameter("model", "The model.", {"type": "string"}, "pets", where="path"),
            parameter("version", "The version.", {"type": "integer", "minimum": 0}, 1, where="path"),
        ],
    )  # fmt: skip


_EXAMPLE: Final[Json] = {
    "model": "pets",
    "version": 3,
    "results": [
        {
            "filename": "a.jpg",
            "label": "cat",
            "score": 0.981,
            "unknown": False,
            "top": [{"label": "cat", "score": 0.981}, {"label": "dog", "score": 0.014}],
            "timing_ms": {"queue": 0.3, "decode": 1.4, "inference": 2.1},
            "batch_size": 2,
        },
        {"filename": "b.txt", "error": {"code": "UNSUPPORTED_FORMAT", "detail": "expected an image, got ..."}},
    ],
}
