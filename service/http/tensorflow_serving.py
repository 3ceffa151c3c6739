"""TensorFlow Serving's REST interface: JSON to its messages and back; `service/tensorflow_serving.py` does the rest.

Paths, formats and errors are those of its model_servers/http_rest_api_handler.cc and util/json_tensor.cc.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from google.protobuf import json_format
from google.protobuf.message import Message

from protos import tensorflow_serving_pb2 as tfs
from service.classifier import Classifier
from service.exchange import observe_answer
from service.http.foreign import foreign_blueprint
from service.http.terms import read_terms, reading
from service.http.waiting import answer_of, kept_back, whole_body
from service.request import Answer, Request, check_count
from service.settings import Settings
from service.tensorflow_serving import DEFAULT_SIGNATURE, SIGNATURES, TensorFlowServing
from service.tensors import IMAGES, Refusal, flatten, pack
from service.terms import Terms

PREFIX: Final = "/v1/"
"""A path below that is not ours is refused in TensorFlow Serving's words, too."""

_RANK: Final = 4
"""Of images as a tensor."""

_VERSION: Final = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_STATUS: Final = re.compile(r"/v1/models(?:/([^/:]+))?" + _VERSION + r"(/metadata)?")
_METHOD: Final = re.compile(r"/v1/models/([^/:]+)" + _VERSION + r":(classify|predict)")


def blueprint(classifier: Classifier, settings: Settings) -> Blueprint:
    """Everything below /v1/ on a classifier whose reactor is this process's gevent hub."""
    face = TensorFlowServing(classifier, settings.max_images, settings.max_body_bytes)
    routes = foreign_blueprint("tensorflow_serving", settings)

    def run(asked: Request) -> Answer:
        started = time.monotonic()
        answer = answer_of(classifier, asked)
        observe_answer("http", time.monotonic() - started, answer)
        return answer

    def predict(spec: tfs.ModelSpec, document: dict[str, Any], terms: Terms) -> Response:
        by_row, asked = _predict_request(spec, document, settings.max_images)
        answer = run(face.read_predict(asked, terms))
        outputs = {name: _rows(tensor) for name, tensor in face.write_predict(asked, answer).outputs.items()}
        if by_row:
            rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
            return jsonify(predictions=rows if len(outputs) > 1 else next(iter(outputs.values())))
        return jsonify(outputs=outputs if len(outputs) > 1 else next(iter(outputs.values())))

    def classify(spec: tfs.ModelSpec, document: dict[str, Any], terms: Terms) -> Response:
        asked = _classify_request(spec, document, settings.max_images)
        answer = run(face.read_classify(asked, terms))
        results = face.write_classify(answer).result.classifications
        return jsonify(results=[[[one.label, _short(one.score)] for one in row.classes] for row in results])

    @routes.get("/v1/<path:_>", provide_automatic_options=False)
    def look(_: str) -> Response:
        matched = _STATUS.fullmatch(request.path)
        if not matched:
            raise malformed()
        if not matched[1]:
            raise Refusal("INVALID_ARGUMENT", "Missing model name in request.")
        spec = _spec(*matched.groups()[:3])
        if matched[4]:
            metadata = face.metadata(tfs.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"]))
            signatures = tfs.SignatureDefMap.FromString(metadata.metadata["signature_def"].value)
            return jsonify(model_spec=_json(metadata.model_spec), metadata={"signature_def": _json(signatures)})
        return jsonify(_json(face.status(tfs.GetModelStatusRequest(model_spec=spec))))

    @routes.post("/v1/<path:_>", provide_automatic_options=False)
    def run_method(_: str) -> Response:
        matched = _METHOD.fullmatch(request.path)
        if not matched:
            raise malformed()
        terms = read_terms(settings.request_timeout_s)
        spec = _spec(*matched.groups()[:3])
        with kept_back():
            face.admit(spec, terms)  # before the body is read, which is most of what it would cost
        with reading(terms, settings.request_timeout_s):
            document = _parse(whole_body())
        spec.signature_name = _signature_name(document)
        return (predict if matched[4] == "predict" else classify)(spec, document, terms)

    return routes


def malformed() -> Refusal:
    """A path that is none, or one with another method: TensorFlow Serving does not tell these apart."""
    return Refusal("INVALID_ARGUMENT", f"Malformed request: {request.method} {request.path[:200]}")


def _spec(name: str, version: str | None, label: str | None) -> tfs.ModelSpec:
    spec = tfs.ModelSpec(name=name, version_label=label)
    if version is not None:
        if len(version) > 18:  # more than an int64 holds, or as good as
            raise Refusal("INVALID_ARGUMENT", f"Failed to convert version: {version[:50]} to numeric.")
        spec.version.value = int(version)
    return spec


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise Refusal("INVALID_ARGUMENT", "JSON Parse error: The document is empty")
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise Refusal("INVALID_ARGUMENT", f"JSON Value: {_shown(document)} Is not object")
    return document


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise Refusal(
            "INVALID_ARGUMENT",
            f"JSON Value: {_shown(name)} not formatted correctly. 'signature_name' key must be a string value.",
        )
    return name


def _predict_request(spec: tfs.ModelSpec, document: dict[str, Any], max_images: int) -> tuple[bool, tfs.PredictRequest]:
    """Whether the format is the one by rows, and the message."""
    by_row = "instances" in document
    if by_row == ("inputs" in document):
        raise Refusal(
            "INVALID_ARGUMENT",
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if by_row
            else "Missing 'inputs' or 'instances' key",
        )
    signature = spec.signature_name or DEFAULT_SIGNATURE
    if signature not in SIGNATURES:
        raise Refusal("INVALID_ARGUMENT", f'Serving signature name: "{signature[:200]}" not found in signature def')
    name, _ = SIGNATURES[signature]
    values = document["instances" if by_row else "inputs"]
    if by_row:
        if not isinstance(values, list) or not values:
            raise Refusal("INVALID_ARGUMENT", "Expecting 'instances' to be a list/array with at least one value")
        _check_count(name, values, max_images)
        values = [_instance(name, index, value) for index, value in enumerate(values)]
    elif isinstance(values, dict) and values.keys() != {"b64"}:
        if name not in values:
            raise Refusal("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
        values = values[name]
    if not by_row and isinstance(values, list):
        _check_count(name, values, max_images)
    asked = tfs.PredictRequest(model_spec=spec)
    asked.inputs[name].CopyFrom(_pixels(values) if name == IMAGES else _files(values))
    return by_row, asked


def _check_count(name: str, values: Sequence[Any], max_images: int) -> None:
    """Before each of a million is looked at. The rows of one image that is no batch of one are not so many images."""
    if name == IMAGES and len(values) > max_images and not isinstance(values[0], dict):
        depth, first = 0, values
        while isinstance(first, list) and first:
            depth, first = depth + 1, first[0]
        if depth < _RANK:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"expected images [N,S,S,3], N of 1 to {max_images}, as lists {_RANK} deep, got {len(values)} of lists "
                f"{depth} deep",
            )
    check_count(len(values), max_images)


def _instance(name: str, index: int, value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict) or value.keys() == {"b64"}:
        return value
    if value.keys() != {name}:
        raise Refusal(
            "INVALID_ARGUMENT",
            f"Failed to process element: {index} of 'instances' list. JSON object: keys must be equal to: {name}",
        )
    return value[name]


def _pixels(values: Any) -> tfs.TensorProto:  # noqa: ANN401 - any JSON
    shape, flat = flatten(values)
    kinds = set(map(type, flat))
    if not kinds <= {int, float}:
        raise Refusal("INVALID_ARGUMENT", "expected numbers of 0 to 255 in nested lists, got something else")
    float32 = float in kinds
    content = pack(flat, float32=float32)
    tensor = tfs.TensorProto(dtype=tfs.DT_FLOAT if float32 else tfs.DT_UINT8, tensor_content=content)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _files(values: Any) -> tfs.TensorProto:  # noqa: ANN401 - any JSON
    tensor = tfs.TensorProto(dtype=tfs.DT_STRING)
    if isinstance(values, list):
        tensor.tensor_shape.dim.add(size=len(values))
    for value in values if isinstance(values, list) else [values]:
        tensor.string_val.append(_bytes(value))
    return tensor


def _bytes(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """A string: base64 in an object, or as it stands."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if not isinstance(value, dict):
        raise Refusal("INVALID_ARGUMENT", f"JSON Value: {_shown(value)} is not of expected type: string")
    text = value.get("b64")
    if value.keys() != {"b64"} or not isinstance(text, str):
        raise Refusal("INVALID_ARGUMENT", f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("INVALID_ARGUMENT", "Unable to base64 decode") from error


def _classify_request(spec: tfs.ModelSpec, document: dict[str, Any], max_images: int) -> tfs.ClassificationRequest:
    asked = tfs.ClassificationRequest(model_spec=spec)
    listed = document.get("examples")
    if not isinstance(listed, list) or not listed:
        raise Refusal(
            "INVALID_ARGUMENT",
            "When method is classify, key 'examples' is expected with a list/array of at least one example",
        )
    check_count(len(listed), max_images)
    examples = asked.input.example_list_with_context
    if "context" in document:
        _fill(examples.context, document["context"])
    for one in listed:
        _fill(examples.examples.add(), one)
    return asked


def _fill(example: tfs.Example, document: Any) -> None:  # noqa: ANN401 - any JSON
    if not isinstance(document, dict):
        raise Refusal("INVALID_ARGUMENT", f"Example must be JSON object but got JSON {_shown(document)}")
    for name, content in document.items():
        feature = example.features.feature[name.encode(errors="replace").decode()]
        for value in content if isinstance(content, list) else [content]:
            if isinstance(value, str | dict):
                feature.bytes_list.value.append(_bytes(value))
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise Refusal(
                    "INVALID_ARGUMENT", f"Feature: {name[:200]} has element with unexpected JSON type: {_shown(value)}"
                )
            # numbers are of no interest: what is classified is an image file


def _rows(tensor: tfs.TensorProto) -> list[list[Any]]:
    columns = tensor.tensor_shape.dim[1].size
    values: Sequence[Any] = (
        [name.decode() for name in tensor.string_val]
        if tensor.dtype == tfs.DT_STRING
        else [_short(score) for score in tensor.float_val]
    )
    return [list(values[start : start + columns]) for start in range(0, len(values), columns)]


def _short(score: float) -> float:
    """A float32 without the digits that it does not have."""
    return float(f"{score:.8g}")


def _json(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON
    """A value for an error, not longer than one wants to read."""
    text = json.dumps(value) if not isinstance(value, list | dict) else type(value).__name__
    return text if len(text) <= 100 else f"{text[:100]}..."
