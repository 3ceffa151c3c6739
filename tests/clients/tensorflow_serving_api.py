"""TensorFlow Serving's own Python stubs: `python -m tests.clients.tensorflow_serving_api ADDRESS IMAGE...`.

In a process of its own, which has the messages of TensorFlow but not the rest of it: importing that takes seconds, and
no test needs it.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import grpc
import numpy as np

# ruff: noqa: E402 - the stubs can be imported once `tensorflow` is there
_found = importlib.util.find_spec("tensorflow")
assert _found
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
sys.modules["tensorflow"].__path__ = list(_found.submodule_search_locations or ())

from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from service.image import ImageSpec, decode
from tests.conftest import SIDE_PX

_DEADLINE_S = 20.0


def main(address: str, paths: list[str]) -> None:
    """Calls every method once or more and prints what came back."""
    images = [Path(path).read_bytes() for path in paths]
    pixels = np.stack([decode(image, ImageSpec(SIDE_PX)) for image in images])
    with grpc.insecure_channel(address) as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        seen = {
            "pixels": _predict(prediction, "serving_default", images=_tensor(pixels)),
            "floats": _predict(prediction, "", images=_tensor(pixels.astype(np.float32) + np.float32(0.25))),
            "one": _predict(prediction, "serving_default", images=_tensor(pixels[:1])),
            "files": _predict(prediction, "serving_bytes", image_bytes=_strings(images)),
            "classify": _classify(prediction, images),
            "metadata": _metadata(prediction),
        }
        seen |= _models(model_service_pb2_grpc.ModelServiceStub(channel))
    print(json.dumps(seen))  # noqa: T201 - the result


def _tensor(values: np.ndarray) -> TensorProto:
    """What tf.make_tensor_proto makes of an array."""
    kind = types_pb2.DT_UINT8 if values.dtype == np.uint8 else types_pb2.DT_FLOAT
    tensor = TensorProto(dtype=kind, tensor_content=values.tobytes())
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _strings(values: list[bytes]) -> TensorProto:
    """What tf.make_tensor_proto makes of a list of bytes."""
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def _values(tensor: TensorProto) -> object:
    """What tf.make_ndarray makes of an answer, as lists."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype == types_pb2.DT_STRING:
        return np.array([one.decode() for one in tensor.string_val]).reshape(shape).tolist()
    assert tensor.dtype == types_pb2.DT_FLOAT
    return np.array(tensor.float_val, np.float32).reshape(shape).tolist()


def _predict(stub: prediction_service_pb2_grpc.PredictionServiceStub, signature: str, **inputs: TensorProto) -> object:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "pets", signature
    request.model_spec.version.value = 1
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(value)
    answer = stub.Predict(request, timeout=_DEADLINE_S)
    return {"spec": _spec(answer), "outputs": {name: _values(tensor) for name, tensor in answer.outputs.items()}}


def _classify(stub: prediction_service_pb2_grpc.PredictionServiceStub, images: list[bytes]) -> object:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "pets"
    for image in images:
        example = Example()
        example.features.feature["image/encoded"].bytes_list.value.append(image)
        request.input.example_list.examples.append(example)
    answer = stub.Classify(request, timeout=_DEADLINE_S)
    rows = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    return {"spec": _spec(answer), "classes": rows}


def _metadata(stub: prediction_service_pb2_grpc.PredictionServiceStub) -> object:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "pets"
    answer = stub.GetModelMetadata(request, timeout=_DEADLINE_S)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    described = {
        name: {
            tensor: [types_pb2.DataType.Name(info.dtype), [dim.size for dim in info.tensor_shape.dim]]
            for tensor, info in (*signature.inputs.items(), *signature.outputs.items())
        }
        for name, signature in signatures.signature_def.items()
    }
    return {"spec": _spec(answer), "signatures": described}


def _models(stub: model_service_pb2_grpc.ModelServiceStub) -> dict[str, object]:
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "pets"
    states = get_model_status_pb2.ModelVersionStatus.State
    versions = stub.GetModelStatus(status, timeout=_DEADLINE_S).model_version_status
    reload = model_management_pb2.ReloadConfigRequest()
    reload.config.model_config_list.config.add(name="pets", base_path="/models/pets", model_platform="tensorflow")
    answer = stub.HandleReloadConfigRequest(reload, timeout=_DEADLINE_S)
    reload.config.model_config_list.config[0].model_version_policy.specific.versions.append(1)
    try:
        stub.HandleReloadConfigRequest(reload, timeout=_DEADLINE_S)
        unauthorized = "OK"
    except grpc.RpcError as error:
        unauthorized = error.code().name
    return {
        "status": [(one.version, states.Name(one.state), one.status.error_code) for one in versions],
        "reload": (answer.status.error_code, answer.status.error_message, unauthorized),
    }


def _spec(answer: object) -> list[object]:
    spec = answer.model_spec  # type: ignore[attr-defined]  # every response has one
    return [spec.name, spec.version.value, spec.signature_name]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
