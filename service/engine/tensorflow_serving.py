"""TensorFlow Serving as a runtime: pictures are decoded here, batches computed by an existing server.

Owns one channel to one server. The server serves the same version directory under the same name and number; that it
does is proven like any runtime's answers, by the goldens.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray

from protos import tensorflow_serving_pb2 as tfs
from service.engine.runtime import Scores
from service.errors import DeadlineExceeded, GraftError, InternalError, NoActivationMap, Overloaded, Unavailable
from service.image import Pixels
from service.version import Version

_PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5
_ERRORS: Final[dict[grpc.StatusCode, type[GraftError]]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.NOT_FOUND: Unavailable,
    grpc.StatusCode.FAILED_PRECONDITION: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unavailable,
    grpc.StatusCode.PERMISSION_DENIED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
}
"""What its errors are to our clients; every other one is an INTERNAL."""


class Loaded:
    """A version that a TensorFlow Serving has loaded.

    A batch that meets UNAVAILABLE is sent again, with growing pauses, until the time for it is over.

    Args:
        version: its name and number are what the server is asked for.
        name: of the runtime.
        threads: unused; the server has its own.
        url: grpc://HOST:PORT, or grpcs://HOST:PORT for TLS.
        ca_file: certificates to trust, PEM; Path() for the system's.
        timeout_s: seconds that one batch may take, retries included.

    Raises:
        Unavailable: nobody answers there.
    """

    def __init__(  # noqa: PLR0917 - the first three are every runtime's
        self, version: Version, name: str, threads: int, url: str, ca_file: Path, timeout_s: float
    ) -> None:
        del threads
        self.name = name
        self.max_batch = 16
        self.host_threads = 1
        self._classes = len(version.manifest.class_names)
        self._timeout_s = timeout_s
        parts = urlsplit(url)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        if parts.scheme == "grpcs":
            trusted = None if ca_file == Path() else ca_file.read_bytes()
            self._channel = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(trusted), options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options)
        self._predict = self._channel.unary_unary(
            _PREDICT,
            request_serializer=tfs.PredictRequest.SerializeToString,
            response_deserializer=tfs.PredictResponse.FromString,
        )
        self._request = tfs.PredictRequest(
            model_spec=tfs.ModelSpec(
                name=version.name, version={"value": version.number}, signature_name="serving_default"
            ),
            output_filter=["scores"],
        )
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise Unavailable(f"no TensorFlow Serving answers at {url} within {timeout_s:g} s") from None

    def predict(self, pixels: Pixels, *, whole_host: bool = False) -> Scores:  # noqa: ARG002 - it has one way only
        """uint8 [N, S, S, 3] -> float32 [N, C].

        Raises:
            Unavailable, Overloaded, DeadlineExceeded: what the server said, or that it said nothing in time.
            InternalError: any other error of the server, or an answer that is none.
        """
        tensor = self._request.inputs["images"]
        tensor.dtype = tfs.DT_UINT8
        tensor.tensor_content = pixels.tobytes()
        del tensor.tensor_shape.dim[:]
        for size in pixels.shape:
            tensor.tensor_shape.dim.add(size=size)
        output = self._ask().outputs["scores"]
        scores = (
            np.frombuffer(output.tensor_content, "<f4")
            if output.tensor_content
            else np.array(output.float_val, np.float32)
        )
        if output.dtype != tfs.DT_FLOAT or scores.size != len(pixels) * self._classes:
            raise InternalError(
                f"expected {len(pixels)} x {self._classes} scores of the TensorFlow Serving, got {scores.size}"
            )
        return scores.reshape(len(pixels), self._classes)

    def class_activation_maps(self) -> Callable[[Pixels], NDArray[np.float32]]:
        """Not asked of another server.

        Raises:
            NoActivationMap: always.
        """
        raise NoActivationMap(
            "expected an engine that computes class activation maps; this one asks a TensorFlow Serving"
        )

    def _ask(self) -> tfs.PredictResponse:
        end = time.monotonic() + self._timeout_s
        pause = _FIRST_PAUSE_S
        while True:
            left = end - time.monotonic()
            try:
                response: tfs.PredictResponse = self._predict(self._request, timeout=left)
            except grpc.RpcError as error:
                code = error.code()
                if code is not grpc.StatusCode.UNAVAILABLE or left <= pause:
                    kind = _ERRORS.get(code, InternalError)
                    raise kind(f"the TensorFlow Serving behind this service answered {code.name}") from error
            else:
                return response
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
