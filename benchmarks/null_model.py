"""`python -m benchmarks.null_model MODELS PHOTOS`: publishes a version that computes next to nothing.

Its requests are as large as those of a real model and its answers look the same, so what they cost is the way there and
back: transport, protocol, queue.
"""

import argparse
import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
from google.protobuf import json_format
from PIL import Image

from benchmarks.bodies import photos
from protos.manifest_pb2 import Golden, Goldens, Manifest
from service.image import ImageSpec, decode
from service.version import GOLDENS, SCHEMA_VERSION, UNFINISHED, publish, write_manifest
from training import export, graph

NAME = "null"
_CLASSES = ("one", "two", "three", "four")


def main() -> None:
    """Publishes version 1 unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, metavar="MODELS", help="models directory to publish it in")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder with JPEGs; one becomes its golden")
    asked = parser.parse_args()
    if not (asked.models / NAME / "1").exists():
        make(asked.models, photos(asked.photos, most=1)[0])


def make(models: Path, photo: bytes, side_px: int = 224) -> Path:
    """Publishes version 1 of the model `null`: the mean of every channel, and a dense layer of four classes.

    Args:
        models: the models directory.
        photo: an image file.
        side_px: S.
    """
    spec = ImageSpec(side_px, "crop")
    images = keras.Input((side_px, side_px, 3), dtype="uint8", name="images")
    means = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(images, "float32"))
    model = keras.Model(images, keras.layers.Dense(len(_CLASSES), activation="softmax")(means / 255))
    frozen = graph.frozen(model)

    folder = models / NAME / f"{UNFINISHED}{os.getpid()}"
    folder.mkdir(parents=True)
    export.write_saved_model(frozen, _CLASSES, spec, folder)
    goldens = folder / GOLDENS
    goldens.mkdir(parents=True)
    (goldens / "0.jpg").write_bytes(photo)
    pixels = decode(photo, spec)
    Image.fromarray(pixels).save(goldens / "0.pixels.png")
    scores = graph.run(frozen, pixels[None])[0].tolist()
    golden = Golden(image="0.jpg", pixels="0.pixels.png", label=_CLASSES[scores.index(max(scores))], scores=scores)
    text = json_format.MessageToJson(Goldens(goldens=[golden]), preserving_proto_field_name=True)
    (goldens / "goldens.json").write_text(text, encoding="utf-8")
    manifest = Manifest(schema_version=SCHEMA_VERSION, name=NAME, version=1, class_names=_CLASSES)
    manifest.image.side_px, manifest.image.decode_version = side_px, spec.decode_version
    manifest.image.resize, manifest.image.resample = spec.resize, spec.resample
    write_manifest(folder, manifest)
    return publish(folder, models, NAME)


if __name__ == "__main__":
    main()
