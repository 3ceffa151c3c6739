"""What the benchmark of serving sends: photos, and requests for them in every protocol, made beforehand."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from protos import open_inference_pb2 as oip
from protos import tensorflow_serving_pb2 as tfs
from protos.classifier_pb2 import ClassifyRequest
from protos.classifier_pb2 import Image as ImageMessage

_BOUNDARY: Final = "graft-benchmark"
JPEG: Final = "image/jpeg"
FORM: Final = f"multipart/form-data; boundary={_BOUNDARY}"
JSON: Final = "application/json"
CLASSIFY: Final = "/graft.v1.ImageClassifier/Classify"
PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def photos(folder: Path, most: int = 200) -> list[bytes]:
    """JPEGs below a folder, evenly chosen."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"expected JPEGs below {folder}, found none")
    step = max(1, len(files) // most)
    return [file.read_bytes() for file in files[::step][:most]]


def large_photo() -> bytes:
    """A photo-like JPEG of 4000 x 3000 pixels."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((4000, 3000))
    grain = random.integers(-12, 13, (3000, 4000, 1), dtype=np.int16)
    return _jpeg(Image.fromarray(np.clip(np.asarray(smooth, np.int16) + grain, 0, 255).astype(np.uint8)))


def tiny_photo() -> bytes:
    """A JPEG of 8 x 8 pixels."""
    return _jpeg(Image.new("RGB", (8, 8), (200, 30, 40)))


def multipart(images: Sequence[bytes]) -> bytes:
    """A form of files, of content type FORM."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{at}.jpg"\r\n'
        f"Content-Type: {JPEG}\r\n\r\n".encode()
        + image
        + b"\r\n"
        for at, image in enumerate(images)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()


def classify(images: Sequence[bytes]) -> bytes:
    """A message for CLASSIFY."""
    return ClassifyRequest(images=[ImageMessage(data=image) for image in images]).SerializeToString()


def predict_bytes(name: str, images: Sequence[bytes]) -> bytes:
    """A message for PREDICT, image files."""
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=name, signature_name="serving_bytes"))
    tensor = request.inputs["image_bytes"]
    tensor.dtype = tfs.DT_STRING
    tensor.string_val.extend(images)
    tensor.tensor_shape.dim.add(size=len(images))
    return request.SerializeToString()


def predict_pixels(name: str, pixels: Sequence[bytes], side_px: int) -> bytes:
    """A message for PREDICT, pixels."""
    request = tfs.PredictRequest(model_spec=tfs.ModelSpec(name=name, signature_name="serving_default"))
    tensor = request.inputs["images"]
    tensor.dtype, tensor.tensor_content = tfs.DT_UINT8, b"".join(pixels)
    for size in (len(pixels), side_px, side_px, 3):
        tensor.tensor_shape.dim.add(size=size)
    return request.SerializeToString()


def predict_json(image: bytes) -> bytes:
    """A body for TensorFlow Serving's REST predict."""
    instances = [{"b64": base64.b64encode(image).decode()}]
    return json.dumps({"signature_name": "serving_bytes", "instances": instances}).encode()


def infer_bytes(name: str, image: bytes) -> bytes:
    """A message for INFER, an image file."""
    request = oip.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="image_bytes", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(image)
    return request.SerializeToString()


def infer_pixels(name: str, pixels: bytes, side_px: int) -> bytes:
    """A message for INFER, pixels."""
    request = oip.ModelInferRequest(model_name=name, raw_input_contents=[pixels])
    request.inputs.add(name="images", datatype="UINT8", shape=[1, side_px, side_px, 3])
    return request.SerializeToString()


def infer_json(image: bytes) -> bytes:
    """A body for the Open Inference Protocol's REST infer."""
    data = [base64.b64encode(image).decode()]
    return json.dumps({"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": data}]}).encode()


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()
