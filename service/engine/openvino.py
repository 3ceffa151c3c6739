"""OpenVINO: the fast runtime on CPU hosts. Reads the SavedModel as it is.

`Core().read_model`, never `convert_model`, which sends telemetry from newly started processes. The caller must have set
this process's CPU affinity before importing this module: OpenVINO pins a single thread to the first core that it sees,
unless it is told not to, as it is where an image may have several cores.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.engine.activation import combine
from service.engine.runtime import Scores
from service.errors import NoActivationMap
from service.image import Pixels
from service.version import QUANTIZED, Version

_PASSED: Final = frozenset({"Convert", "Transpose"})
_LARGE_WEIGHTS_BYTES = 200 << 20
"""Each compiled shape holds a copy of the weights, so a large model is compiled once, for any batch size."""


class Loaded:
    """A version compiled for the CPU.

    Static shapes are about 10 % faster than a dynamic batch, so a batch is cut into compiled sizes. Batches of 4 pay,
    larger ones do not (MobileNetV2 and ResNet50, docs/decisions.md). With `host_threads` there is another of size 1,
    for an image that has the host to itself; its threads have the priority of the constructor's.
    """

    def __init__(self, version: Version, name: str, threads: int, *, host_threads: int = 1) -> None:
        self.name = name
        self.max_batch = 4
        self._classes = len(version.manifest.class_names)
        self._path = version.path
        self._input = (1, version.spec.side_px, version.spec.side_px, 3)
        self._core = core = ov.Core()
        precision = name.split("/")[1]
        quantized = precision == "int8"
        model = core.read_model(version.path / QUANTIZED if quantized else version.path)
        self._settings = settings = {
            "INFERENCE_PRECISION_HINT": "f32" if quantized else precision,  # of what is not quantized
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if host_threads > 1:
            # the caller of `predict` has a core of its own; pinned, all would begin at the first
            settings["ENABLE_CPU_PINNING"] = False
        side = version.spec.side_px
        exact = [version.path / "saved_model.pb", *(version.path / "variables").iterdir()]
        weights = [(version.path / QUANTIZED).with_suffix(".bin")] if quantized else exact
        large = sum(file.stat().st_size for file in weights) > _LARGE_WEIGHTS_BYTES
        self._by_size = []
        for size in (-1,) if large else (self.max_batch, 1):
            model.reshape({model.inputs[0]: ov.PartialShape([size, side, side, 3])})
            self._by_size.append((size, core.compile_model(model, "CPU", settings).create_infer_request()))
        self._on_whole_host = self._by_size
        self.host_threads = 1 if large else host_threads
        if self.host_threads > 1:
            together = settings | {"INFERENCE_NUM_THREADS": host_threads}  # the size is still 1
            self._on_whole_host = [(1, core.compile_model(model, "CPU", together).create_infer_request())]
            self.predict(np.zeros(self._input, np.uint8), whole_host=True)  # its threads start now

    def predict(self, pixels: Pixels, *, whole_host: bool = False) -> Scores:
        """uint8 [N, S, S, 3] -> float32 [N, C]."""
        scores = np.empty((len(pixels), self._classes), np.float32)
        done = 0
        for compiled, request in self._on_whole_host if whole_host else self._by_size:
            size = len(pixels) if compiled == -1 else compiled
            while len(pixels) - done >= size > 0:
                # given to `infer`, they would be looked at in Python for 0.1 ms
                request.set_input_tensor(ov.Tensor(pixels[done : done + size], shared_memory=True))
                request.infer(share_outputs=True)
                scores[done : done + size] = request.get_output_tensor(0).data
                done += size
        return scores

    def class_activation_maps(self) -> Callable[[Pixels], NDArray[np.float32]]:
        """uint8 [1, S, S, 3] -> float32 [1, h, w, C].

        OpenVINO reads no signature but `serving_default` and forgets the names of what is inside it. So the feature
        maps and the kernel are looked for from the scores backwards; the network up to there is compiled once more.

        Raises:
            NoActivationMap: the graph does not end as the definition in service/engine/activation.py says.
        """
        model = self._core.read_model(self._path)
        pooled, kernel, bias = _head(model.outputs[0].get_node())
        # read_model may have turned the feature maps to [N, D, h, w]; the pooled axes tell
        places = [tuple(int(axis) for axis in _constant(node, 1)) for node in pooled]
        network = ov.Model([_source(node) for node in pooled], model.get_parameters(), "features")
        network.reshape({network.inputs[0]: ov.PartialShape(list(self._input))})
        settings = self._settings | {"INFERENCE_PRECISION_HINT": "f32"}
        request = self._core.compile_model(network, "CPU", settings).create_infer_request()
        einsum = partial(np.einsum, optimize=True)

        def maps(pixels: Pixels) -> NDArray[np.float32]:
            request.infer([pixels], share_inputs=True)
            features = [
                np.moveaxis(request.get_output_tensor(number).data, axes, (1, 2)) for number, axes in enumerate(places)
            ]
            return np.asarray(combine(features, kernel, bias, einsum), np.float32)

        return maps


def _head(result: Any) -> tuple[list[Any], NDArray[np.float32], NDArray[np.float32]]:  # noqa: ANN401 - openvino is untyped
    """Walks from the scores back to the nodes that pool the feature maps, in the order of the kernel's rows."""
    add = _expect(_expect(result, "Softmax"), "Add")
    product = _expect(add, "MatMul")
    joined = _before(product)
    nodes = [_before(joined, at) for at in range(joined.get_input_size())] if _is(joined, "Concat") else [joined]
    if not all(_is(node, "ReduceMean") for node in nodes):
        raise NoActivationMap("this engine finds no mean-pooled feature maps in the version's graph")
    kernel, bias = _constant(product, 1), _constant(add, 1)
    transposed = product.get_attributes()["transpose_b"]
    return nodes, kernel.T if transposed else kernel, bias


def _before(node: Any, number: int = 0) -> Any:  # noqa: ANN401 - openvino is untyped
    """The node that computes an input, past those that only change its type or the order of its axes."""
    found = _source(node, number).get_node()
    while found.get_type_name() in _PASSED:
        found = _source(found).get_node()
    return found


def _expect(node: Any, kind: str) -> Any:  # noqa: ANN401 - openvino is untyped
    found = _before(node)
    if not _is(found, kind):
        raise NoActivationMap(f"this engine expected {kind} in the version's graph, found {found.get_type_name()}")
    return found


def _is(node: Any, kind: str) -> bool:  # noqa: ANN401 - openvino is untyped
    return bool(node.get_type_name() == kind)


def _constant(node: Any, number: int) -> NDArray[Any]:  # noqa: ANN401 - openvino is untyped
    found = _before(node, number)
    if not _is(found, "Constant"):
        raise NoActivationMap("this engine expected the head's weights to be constants")
    return np.array(found.data)  # a copy: the graph is dropped


def _source(node: Any, number: int = 0) -> Any:  # noqa: ANN401 - openvino is untyped
    return node.input(number).get_source_output()
