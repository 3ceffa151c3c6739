"""The Open Inference Protocol's REST interface: JSON and binary tensors to its messages and back.

`service/open_inference.py` does the rest. A BYTES element is an image file, so as a JSON string it is base64.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from google.protobuf import json_format

from protos import open_inference_pb2 as oip
from service.classifier import Classifier
from service.exchange import observe_answer
from service.http.foreign import foreign_blueprint
from service.http.terms import read_terms, reading
from service.http.waiting import answer_of, kept_back, whole_body
from service.open_inference import EXTENSIONS, PLATFORM, VERSION, OpenInference, Output, to_raw
from service.settings import Settings
from service.tensors import Refusal, flatten, pack

PREFIX: Final = "/v2/"
"""A path below that is not ours is refused in this protocol's shape, too."""

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""How many bytes of a body are JSON; what follows are binary tensors."""


def blueprint(classifier: Classifier, settings: Settings, is_ready: Callable[[], bool]) -> Blueprint:
    """Everything below /v2 on a classifier whose reactor is this process's gevent hub.

    Args:
        classifier: what answers.
        settings: the limits.
        is_ready: whether the service is.
    """
    face = OpenInference(classifier, settings.max_images)
    routes = foreign_blueprint("open_inference", settings)

    @routes.get("/v2", strict_slashes=False)
    def metadata() -> Response:
        return jsonify(name=PLATFORM, version=VERSION, extensions=list(EXTENSIONS))

    @routes.get("/v2/health/live")
    def live() -> Response:
        return jsonify(live=True)

    @routes.get("/v2/health/ready")
    def ready() -> Response:
        return _ready(is_ready())

    @routes.get("/v2/models/<name>/ready")
    @routes.get("/v2/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str = "") -> Response:
        return _ready(face.ready(name, version))

    @routes.get("/v2/models/<name>")
    @routes.get("/v2/models/<name>/versions/<version>")
    def model_metadata(name: str, version: str = "") -> Response:
        described = json_format.MessageToDict(face.metadata(name, version))
        for tensor in (*described["inputs"], *described["outputs"]):
            tensor["shape"] = [int(size) for size in tensor["shape"]]  # int64 is a string in protobuf's JSON
        return jsonify(described)

    @routes.post("/v2/models/<name>/infer")
    @routes.post("/v2/models/<name>/versions/<version>/infer")
    def infer(name: str, version: str = "") -> Response:
        terms = read_terms(settings.request_timeout_s)
        with kept_back():
            face.admit(name, version, terms)  # before the body is read, which is most of what it would cost
        with reading(terms, settings.request_timeout_s):
            body = whole_body()
        asked, binary = _read(body, request.headers.get(HEADER_LENGTH))
        asked.model_name, asked.model_version = name, version
        asked.id = asked.id or terms.request_id
        started = time.monotonic()
        answer = answer_of(classifier, face.read_infer(asked, terms))
        observe_answer("http", time.monotonic() - started, answer)
        head = {"model_name": answer.model, "model_version": str(answer.version)} | (
            {"id": asked.id} if asked.id else {}
        )
        return _write(head, face.outputs(asked, answer), binary)

    return routes


def _ready(ready: bool) -> Response:
    response = jsonify(ready=ready)
    response.status_code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return response


def _wrong(detail: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", detail)


def _read(body: bytes, header_length: str | None) -> tuple[oip.ModelInferRequest, Mapping[str, bool]]:
    """The message, and which outputs are to be binary; "" stands for those that are not named."""
    binary = b""
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or not int(header_length[:18]) <= len(body):
            raise _wrong(f"expected {HEADER_LENGTH} of 0 to {len(body)}, got {header_length[:50]!r}")
        body, binary = body[: int(header_length)], body[int(header_length) :]
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"failed to parse the request JSON buffer: {error}") from error
    inputs, outputs = _list(document, "inputs"), _list(document, "outputs")
    parameters = _object(document, "parameters")
    asked = oip.ModelInferRequest(id=_text(document.get("id", ""), "id"))
    _fill(asked.parameters, parameters)
    at = 0
    for one in inputs:
        tensor = asked.inputs.add(name=_text(one.get("name"), "name"), datatype=_text(one.get("datatype"), "datatype"))
        shape = one.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and abs(size) < 1 << 63 for size in shape):
            raise _wrong(f"expected shape of input '{tensor.name[:200]}' to be a list of integers")
        tensor.shape.extend(shape)
        own = _object(one, "parameters")
        _fill(tensor.parameters, own)
        size = own.get("binary_data_size")
        if size is None:
            asked.raw_input_contents.append(_data(tensor, one.get("data")))
        else:
            if type(size) is not int or not 0 <= size <= len(binary) - at:
                raise _wrong(
                    f"expected binary_data_size of input '{tensor.name[:200]}' to be 0 to {len(binary) - at}, what "
                    f"is there, got {str(size)[:50]}"
                )
            asked.raw_input_contents.append(binary[at : at + size])
            at += size
    if at < len(binary):
        raise _wrong(f"unexpected additional input data: {len(binary) - at} bytes behind the last input")
    forms = {"": parameters.get("binary_data_output") is True}
    for one in outputs:
        output = asked.outputs.add(name=_text(one.get("name"), "name"))
        own = _object(one, "parameters")
        _fill(output.parameters, own)
        forms[output.name] = bool(own.get("binary_data", forms[""]))
    return asked, forms


def _data(tensor: oip.ModelInferRequest.InferInputTensor, data: Any) -> bytes:  # noqa: ANN401 - any JSON
    """JSON values, flat or nested, as raw bytes."""
    if not isinstance(data, list):
        raise _wrong(f"expected data of input '{tensor.name[:200]}' to be a list")
    _, flat = flatten(data)
    if tensor.datatype == "BYTES":
        return to_raw([_file(text, tensor.name) for text in flat])
    if not set(map(type, flat)) <= {int, float}:
        raise _wrong(f"expected data of input '{tensor.name[:200]}' to be numbers")
    return pack(flat, float32=tensor.datatype == "FP32") if tensor.datatype in {"FP32", "UINT8"} else b""


def _file(text: Any, name: str) -> bytes:  # noqa: ANN401 - any JSON
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _wrong(f"expected data of input '{name[:200]}' to be strings in base64") from error


def _list(document: Any, name: str) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    if not isinstance(document, dict):
        raise _wrong("failed to parse the request JSON buffer: expected an object")
    listed = document.get(name, [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _wrong(f"expected {name} to be a list of objects")
    return listed


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise _wrong(f"expected {name} to be an object")
    return found


def _text(value: Any, name: str) -> str:  # noqa: ANN401 - any JSON
    if not isinstance(value, str):
        raise _wrong(f"expected {name} to be a string")
    return value.encode(errors="replace").decode()


def _fill(parameters: Any, given: Mapping[str, Any]) -> None:  # noqa: ANN401 - a protobuf map
    """Parameters as the message has them; what it has no type for is of no interest here."""
    for name, value in given.items():
        parameter = parameters[_text(name, "parameter")]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            if abs(value) >= 1 << 63:
                raise _wrong(f"expected parameter {name[:200]!r} to be an integer of 64 bits")
            parameter.int64_param = value
        elif isinstance(value, str):
            parameter.string_param = _text(value, name)


def _write(head: dict[str, Any], outputs: list[Output], binary: Mapping[str, bool]) -> Response:
    described, parts = [], []
    for output in outputs:
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if binary.get(output.name, binary[""]):
            parts.append(output.raw())
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = [
                value.decode() if isinstance(value, bytes) else float(f"{value:.8g}")  # a float32 has no more digits
                for value in output.values
            ]
        described.append(one)
    response = jsonify(head | {"outputs": described})
    if parts:
        header = response.get_data()
        response.set_data(b"".join((header, *parts)))
        response.content_type = "application/octet-stream"
        response.headers[HEADER_LENGTH] = str(len(header))
    return response
