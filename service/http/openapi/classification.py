"""`POST /classify` described: what it takes, what it answers, and the problem document of every path of Graft's own."""

from typing import Final

from service.errors import ImageError, ModelNotFound, RequestTimeout, Unauthenticated
from service.http.openapi.parts import (
    TERMS,
    URL,
    Json,
    Statuses,
    answer,
    by_status,
    operation,
    parameter,
    problems,
    reference,
    retry_header,
    with_photo,
)
from service.request import MAX_TOP_K
from service.settings import Settings

_FLAG: Final[Json] = {"type": "integer", "enum": [0, 1], "default": 0}
_WHOLE_REQUEST: Final = (RequestTimeout, ModelNotFound)
"""Errors that are never an image's: they are found before there are images."""


def paths(statuses: Statuses, settings: Settings) -> Json:
    """The path."""
    return {"/classify": {"post": _classify(statuses, settings)}}


def schemas(statuses: Statuses, settings: Settings) -> Json:
    """The components that it speaks of."""
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
                            "properties": dict.fromkeys(("left", "top", "width", "height"), number),
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
        f"curl --data-binary @photo.jpg '{URL}/classify?top_k=3'\n"
        f"curl -F file=@a.jpg -F file=@b.jpg '{URL}/classify?model=pets'\n"
        + with_photo('{"images": [{"b64": "', '"}]}', f"{URL}/classify"),
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
