"""NVIDIA's tritonclient, over HTTP or gRPC: `python tests/clients/triton.py http|grpc ADDRESS PIXELS.npy IMAGE...`.

Runs in the clients' own environment (`make test-clients`), which has nothing of ours.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException


def main(protocol: str, address: str, pixels_path: str, paths: list[str]) -> None:
    """Calls everything that we speak and prints what came back."""
    if protocol == "http":
        import tritonclient.http as triton  # noqa: PLC0415 - one of two
    else:
        import tritonclient.grpc as triton  # noqa: PLC0415 - one of two
    client = triton.InferenceServerClient(address)
    pixels = np.load(pixels_path)
    files = np.array([Path(path).read_bytes() for path in paths], dtype=object)
    seen: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": [client.is_model_ready("pets"), client.is_model_ready("pets", "1")],
        "server": _plain(client.get_server_metadata()),
        "model": _plain(client.get_model_metadata("pets")),
        "pixels": _infer(triton, client, "images", "UINT8", pixels),
        "floats": _infer(triton, client, "images", "FP32", pixels.astype(np.float32) + np.float32(0.25)),
        "files": _infer(triton, client, "image_bytes", "BYTES", files),
        "column": _infer(triton, client, "image_bytes", "BYTES", files.reshape(-1, 1)),
        "best": _infer(
            triton, client, "image_bytes", "BYTES", files, [triton.InferRequestedOutput("scores", class_count=2)]
        ),
        "id": _id(triton, client, files),
        "errors": _errors(triton, client, pixels),
    }
    if protocol == "http":
        plain = [triton.InferRequestedOutput(name, binary_data=False) for name in ("scores", "classes")]
        seen["json"] = _infer(triton, client, "images", "UINT8", pixels, plain, binary=False)
    print(json.dumps(seen))  # noqa: T201 - the result


def _input(triton: ModuleType, name: str, kind: str, values: np.ndarray, **how: bool) -> Any:
    tensor = triton.InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(values, **how)
    return tensor


def _infer(  # noqa: PLR0917 - what varies between the calls
    triton: ModuleType,
    client: Any,
    name: str,
    kind: str,
    values: np.ndarray,
    outputs: list[Any] | None = None,
    *,
    binary: bool = True,
) -> dict[str, Any]:
    how = {} if binary else {"binary_data": False}
    answer = (
        client.infer("pets", [_input(triton, name, kind, values, **how)], outputs=outputs, client_timeout=20.0)
        if (triton.__name__.endswith("grpc"))
        else client.infer("pets", [_input(triton, name, kind, values, **how)], outputs=outputs)
    )
    found = {}
    for output in ("scores", "classes"):
        array = answer.as_numpy(output)
        if array is not None:
            found[output] = [[one.decode() if isinstance(one, bytes) else one for one in row] for row in array.tolist()]
    return found


def _id(triton: ModuleType, client: Any, files: np.ndarray) -> list[str]:
    answer = client.infer("pets", [_input(triton, "image_bytes", "BYTES", files[:1])], "1", request_id="abc")
    response = answer.get_response()
    if isinstance(response, dict):
        return [response["id"], response["model_name"], response["model_version"]]
    return [response.id, response.model_name, response.model_version]


def _errors(triton: ModuleType, client: Any, pixels: np.ndarray) -> list[str]:
    messages = []
    for model, name, values in (("cats", "images", pixels), ("pets", "pixels", pixels), ("pets", "images", pixels[0])):
        try:
            client.infer(model, [_input(triton, name, "UINT8", values)])
        except InferenceServerException as error:
            messages.append(error.message())
    return messages


def _plain(answer: Any) -> Any:
    if isinstance(answer, dict):
        return answer
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - only gRPC's environment has it

    found = MessageToDict(answer)
    for tensor in (*found.get("inputs", ()), *found.get("outputs", ())):
        tensor["shape"] = [int(size) for size in tensor["shape"]]
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
