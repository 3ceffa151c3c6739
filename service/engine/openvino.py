"""OpenVINO: the fast runtime on CPU hosts. Reads the SavedModel as it is.

`Core().read_model`, never `convert_model`, which sends telemetry from newly started processes. The caller must have set
this process's CPU affinity before importing this module: OpenVINO pins a single thread to the first core that it sees.
"""

import numpy as np
import openvino as ov

from service.engine.runtime import Scores
from service.image import Pixels
from service.version import Version

_LARGE_WEIGHTS_BYTES = 200 << 20
"""Each compiled shape holds a copy of the weights, so a large model is compiled once, for any batch size."""


class Loaded:
    """A version compiled for the CPU.

    Static shapes are about 10 % faster than a dynamic batch, so a batch is cut into compiled sizes. Batches of 4 pay,
    larger ones do not (MobileNetV2 and ResNet50, docs/decisions.md).
    """

    def __init__(self, version: Version, name: str, threads: int) -> None:
        self.name = name
        self.max_batch = 4
        self._classes = len(version.manifest.class_names)
        core = ov.Core()
        model = core.read_model(version.path)
        settings = {
            "INFERENCE_PRECISION_HINT": name.split("/")[1],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        side = version.spec.side_px
        weights = [version.path / "saved_model.pb", *(version.path / "variables").iterdir()]
        large = sum(file.stat().st_size for file in weights) > _LARGE_WEIGHTS_BYTES
        self._by_size = []
        for size in (-1,) if large else (self.max_batch, 1):
            model.reshape({model.inputs[0]: ov.PartialShape([size, side, side, 3])})
            self._by_size.append((size, core.compile_model(model, "CPU", settings).create_infer_request()))

    def predict(self, pixels: Pixels) -> Scores:
        """uint8 [N, S, S, 3] -> float32 [N, C]."""
        scores = np.empty((len(pixels), self._classes), np.float32)
        done = 0
        for compiled, request in self._by_size:
            size = len(pixels) if compiled == -1 else compiled
            while len(pixels) - done >= size > 0:
                request.infer([pixels[done : done + size]], share_inputs=True)
                scores[done : done + size] = request.get_output_tensor(0).data
                done += size
        return scores
