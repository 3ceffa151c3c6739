"""KServe's Python client: `python tests/clients/kserve_sdk.py HTTP_URL GRPC_ADDRESS PIXELS.npy IMAGE...`.

Runs in the clients' own environment (`make test-clients`), which has nothing of ours.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str, address: str, pixels_path: str, paths: list[str]) -> None:
    """Calls everything that the client has, over its three protocols, and prints what came back."""
    pixels, files = np.load(pixels_path), [Path(path).read_bytes() for path in paths]
    encoded = [base64.b64encode(file).decode() for file in files]
    old, rest, grpc = (
        InferenceRESTClient(RESTConfig(protocol="v1")),
        InferenceRESTClient(RESTConfig(protocol="v2")),
        InferenceGRPCClient(url=address),
    )
    seen: dict[str, Any] = {
        "ready": [
            await rest.is_server_live(url),
            await rest.is_server_ready(url),
            await rest.is_model_ready(url, "pets"),
            await grpc.is_server_live(),
            await grpc.is_server_ready(),
            await grpc.is_model_ready("pets"),
        ],
        "v1 pixels": (await old.infer(url, {"instances": pixels.tolist()}, "pets"))["predictions"],
        "v1 files": [
            one["scores"]
            for one in (
                await old.infer(
                    url, {"signature_name": "serving_bytes", "instances": [{"b64": text} for text in encoded]}, "pets"
                )
            )["predictions"]
        ],
        "v2 files": _scores(await rest.infer(url, _request("image_bytes", "BYTES", [len(files)], encoded), "pets")),
        "v2 json": _scores(await rest.infer(url, _request("images", "UINT8", pixels, None, binary=False), "pets")),
        "v2 binary": _scores(await rest.infer(url, _request("images", "UINT8", pixels, None), "pets")),
        "grpc raw": _scores(await grpc.infer(_request("images", "UINT8", pixels, None))),
        "grpc floats": _scores(await grpc.infer(_request("images", "FP32", pixels.astype(np.float32), None))),
    }
    for client in (old, rest, grpc):
        await client.close()
    print(json.dumps(seen))  # noqa: T201 - the result


def _request(name: str, kind: str, values: Any, data: list[str] | None, *, binary: bool = True) -> InferRequest:
    if data is not None:
        tensor = InferInput(name, values, kind, data=data)
    else:
        tensor = InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name="pets", infer_inputs=[tensor])


def _scores(answer: Any) -> list[list[float]]:
    (output,) = [one for one in answer.outputs if one.name == "scores"]
    scores: list[list[float]] = output.as_numpy().reshape(output.shape).tolist()
    return scores


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
