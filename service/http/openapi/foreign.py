"""Other interfaces described: TensorFlow Serving's REST below /v1, the Open Inference Protocol's below /v2."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from service.errors import (
    GraftError,
    InvalidBase64,
    NoActivationMap,
    RequestTooLarge,
    Unauthenticated,
    UnsupportedMedia,
)
from service.http.foreign import HTTP_STATUS
from service.http.openapi.parts import (
    TERMS,
    URL,
    Json,
    answer,
    foreign_errors,
    operation,
    parameter,
    reference,
    with_photo,
)
from service.tensors import STATUS

_NAME: Final = parameter("name", "The model.", {"type": "string"}, "pets", where="path")
_PLACES: Final[Mapping[str, list[Json]]] = {
    "": [],
    "/versions/{version}": [
        parameter("version", "The version.", {"type": "integer", "minimum": 0}, 1, where="path"),
    ],
    "/labels/{label}": [
        parameter("label", "The label.", {"type": "string"}, "stable", where="path"),
    ],
}
"""Ways to name a version behind the model's name, with the parameters of each."""

_ONLY_OURS: Final = (InvalidBase64, NoActivationMap, RequestTooLarge, Unauthenticated, UnsupportedMedia)
"""Errors that these interfaces do not meet, or say in another way."""

_SUFFIX: Final = {"": "", "/versions/{version}": "OfVersion", "/labels/{label}": "OfLabel"}


def tensorflow_serving_paths() -> Json:
    """Everything below /v1."""
    found: Json = {}
    for place, parameters in _PLACES.items():
        path, suffix = "/v1/models/{name}" + place, _SUFFIX[place]
        example = path.replace("{name}", "pets").replace("{version}", "1").replace("{label}", "stable")
        both: Json = {"parameters": [_NAME, *parameters]}
        for more, name, summary, schema in (
            ("", "modelStatus", "States of a model's versions", "ModelStatus"),
            ("/metadata", "modelMetadata", "Inputs and outputs of a version", "ModelMetadata"),
        ):
            found[path + more] = both | {
                "get": operation(
                    "TensorFlow Serving",
                    name + suffix,
                    summary,
                    f"curl {URL}{example}{more}",
                    {"200": answer("As TensorFlow Serving says it.", reference(schema))} | _errors(reads=False),
                )
            }
        for method, summary, body, before, after in (
            ("predict", "Scores of images", "Predict",
             '{"signature_name": "serving_bytes", "instances": [{"b64": "', '"}]}'),
            ("classify", "Labels and scores of image files", "ClassifyExamples",
             '{"examples": [{"image/encoded": {"b64": "', '"}}]}'),
        ):  # fmt: skip
            found[f"{path}:{method}"] = both | {
                "post": operation(
                    "TensorFlow Serving",
                    method + "Model" + suffix,
                    summary,
                    with_photo(before, after, f"{URL}{example}:{method}"),
                    {"200": answer("By rows or by columns, as asked.", reference(body + "Answer"))}
                    | _errors(reads=True),
                    parameters=[*TERMS],
                    requestBody={"required": True, "content": {"application/json": {"schema": reference(body)}}},
                )
            }
    return found


def open_inference_paths() -> Json:
    """Everything below /v2."""
    state = {"type": "object"}
    not_ready = answer("Not ready.", state)
    found: Json = {
        "/v2": _look("serverMetadata", "The server and its extensions", "/v2", reference("ServerMetadata")),
        "/v2/health/live": _look("serverLive", "Whether the server is live", "/v2/health/live", state),
        "/v2/health/ready": _look("serverReady", "Whether the server is ready", "/v2/health/ready", state, not_ready),
    }
    for place in ("", "/versions/{version}"):
        path, suffix = "/v2/models/{name}" + place, _SUFFIX[place]
        example = path.replace("{name}", "pets").replace("{version}", "1")
        both: Json = {"parameters": [_NAME, *_PLACES[place]]}
        errors = _errors(reads=False)
        found[path] = both | _look(
            "inferenceMetadata" + suffix, "Inputs and outputs of a model", example, reference("InferenceMetadata"),
            **errors,
        )  # fmt: skip
        found[path + "/ready"] = both | _look(
            "inferenceReady" + suffix, "Whether a model answers", example + "/ready", state, not_ready,
            **{status: one for status, one in errors.items() if status != "503"},
        )  # fmt: skip
        found[path + "/infer"] = both | {
            "post": operation(
                "Open Inference Protocol",
                "infer" + suffix,
                "Scores and labels of images",
                with_photo(
                    '{"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": ["',
                    '"]}]}',
                    f"{URL}{example}/infer",
                ),
                {"200": _inferred()} | _errors(reads=True),
                description="With the binary tensor data extension and the classification extension.",
                parameters=[
                    *TERMS,
                    parameter(
                        "Inference-Header-Content-Length",
                        "How many bytes of the body are JSON; binary tensors follow them.",
                        {"type": "integer", "minimum": 0},
                        where="header",
                    ),
                ],
                requestBody={
                    "required": True,
                    "content": {"application/json": {"schema": reference("Infer")}},
                },
            )
        }
    return found


def schemas(max_images: int) -> Json:
    """The components that these paths speak of."""
    text = {"type": "string"}
    file = {
        "type": "object",
        "required": ["b64"],
        "additionalProperties": False,
        "properties": {"b64": {**text, "format": "image-base64"}},
    }
    feature = {"oneOf": [text, {"type": "number"}, file]}
    pixel = {"type": "array", "minItems": 3, "maxItems": 3, "items": {"type": "number", "minimum": 0, "maximum": 255}}
    image = {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": pixel}}
    rows = {"type": "array", "items": {"type": "array"}}

    def listed(items: Json) -> Json:
        return {"type": "array", "minItems": 1, "maxItems": max_images, "items": items}

    def asked(signature: Json, title: str, required: list[str], key: str, values: Json) -> Json:
        other = "inputs" if key == "instances" else "instances"
        return {
            "title": title,
            "type": "object",
            "required": [*required, key],
            "properties": {"signature_name": signature, key: values, other: False},
        }

    default, by_bytes = {"enum": ["", "serving_default"]}, {"const": "serving_bytes"}
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"enum": ["images", "image_bytes"]},
            "datatype": {"enum": ["UINT8", "FP32", "BYTES"]},
            "shape": {"type": "array", "items": {"type": "integer"}, "examples": [[1]]},
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "Numbers, flat or nested, or files in base64."},
        },
    }
    output = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": text,
            "datatype": {"enum": ["FP32", "BYTES"]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
    }
    return {
        "ForeignError": {
            "type": "object",
            "description": "An error in the shape that TensorFlow Serving and Triton share.",
            "required": ["error"],
            "additionalProperties": False,
            "properties": {"error": text},
        },
        "ModelStatus": {
            "type": "object",
            "required": ["model_version_status"],
            "properties": {"model_version_status": {"type": "array", "items": {"type": "object"}}},
        },
        "ModelMetadata": {
            "type": "object",
            "required": ["model_spec", "metadata"],
            "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
        },
        "Predict": {
            "oneOf": [
                asked(by_bytes, "Files, by rows", ["signature_name"], "instances", listed(file)),
                asked(by_bytes, "Files, by columns", ["signature_name"], "inputs", listed(file)),
                asked(default, "Pixels, by rows", [], "instances", listed(image)),
                asked(default, "Pixels, by columns", [], "inputs", listed(image)),
            ]
        },
        "PredictAnswer": {
            "oneOf": [
                {"type": "object", "required": ["predictions"], "properties": {"predictions": {"type": "array"}}},
                {
                    "type": "object",
                    "required": ["outputs"],
                    "properties": {"outputs": {"oneOf": [rows, {"type": "object", "additionalProperties": rows}]}},
                },
            ]
        },
        "ClassifyExamples": {
            "type": "object",
            "required": ["examples"],
            "properties": {
                "signature_name": {"enum": ["", "serving_default", "serving_bytes"]},
                "examples": listed(
                    {
                        "type": "object",
                        "required": ["image/encoded"],
                        "properties": {"image/encoded": file},
                        "additionalProperties": {"oneOf": [feature, {"type": "array", "items": feature}]},
                    }
                ),
            },
        },
        "ClassifyExamplesAnswer": {
            "type": "object",
            "required": ["results"],
            "properties": {
                "results": {
                    "type": "array",
                    "description": "Pairs of label and score for every example.",
                    "items": {
                        "type": "array",
                        "items": {
                            "type": "array",
                            "items": {"type": ["string", "number"]},
                            "minItems": 2,
                            "maxItems": 2,
                        },
                    },
                }
            },
        },
        "ServerMetadata": {
            "type": "object",
            "required": ["name", "version", "extensions"],
            "properties": {"name": text, "version": text, "extensions": {"type": "array", "items": text}},
        },
        "InferenceMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array", "items": {"type": "object"}},
                "outputs": {"type": "array", "items": {"type": "object"}},
            },
        },
        "Infer": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": text,
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": tensor},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"enum": ["scores", "classes"]}, "parameters": {"type": "object"}},
                    },
                },
            },
        },
        "Inferred": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": text,
                "model_version": text,
                "id": text,
                "outputs": {"type": "array", "items": output},
            },
        },
    }


def _look(name: str, summary: str, path: str, schema: Json, not_ready: Json | None = None, **errors: Json) -> Json:
    responses = {"200": answer("The answer.", schema), **errors} | ({"503": not_ready} if not_ready else {})
    return {"get": operation("Open Inference Protocol", name, summary, f"curl {URL}{path}", responses)}


def _inferred() -> Json:
    found = answer("JSON, or JSON and binary tensors behind it where they were asked for.", reference("Inferred"))
    found["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    found["headers"] = {
        "Inference-Header-Content-Length": {
            "description": "How many bytes are JSON; only where binary tensors follow.",
            "schema": {"type": "integer"},
        }
    }
    return found


def _errors(*, reads: bool) -> Json:
    """What may come back; a path that reads a body and classifies can meet everything."""
    found: dict[HTTPStatus, list[type[GraftError]]] = {}
    for error, status in STATUS.items():
        if error not in _ONLY_OURS:
            found.setdefault(HTTP_STATUS[status], []).append(error)
    if not reads:
        few = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
        return foreign_errors({status: found[status] for status in few}, "ForeignError")
    found[HTTPStatus.REQUEST_ENTITY_TOO_LARGE] = [RequestTooLarge]
    return foreign_errors(found, "ForeignError")
