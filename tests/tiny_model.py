"""Makes the version directories that tests serve; run once per session, in a process of its own, for TensorFlow's sake.

The models are no networks that learned anything: their weights are chosen, so that a picture's label follows from its
colours ("red", "green", "blue", or "grey" when none of them dominates). `model` also looks where they are (each quarter
of the picture weighs differently, so a picture that is turned or mirrored scores differently); `mapped` does not, and
has class activation maps of 4 x 4 places, exported as the trainer does.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from PIL import Image

from protos.manifest_pb2 import Golden, Goldens
from service.image import ImageSpec, decode
from service.version import GOLDENS
from tests.pictures import encode, photo
from training import graph
from training.export import write_saved_model

SIDE_PX = 32
CLASSES = ("red", "green", "blue", "grey")
_QUARTERS = np.array([[1.6, 1.1], [0.8, 0.5]], np.float32)


def main(out: Path) -> None:
    """Writes the SavedModels and their goldens; the manifests are the tests' to choose."""
    _write_model(out / "model")
    mapped, spec = _mapped(), ImageSpec(SIDE_PX, "crop")
    _, maps = write_saved_model(graph.frozen(mapped), CLASSES, spec, out / "mapped")
    _write_goldens(out / "mapped", mapped, spec)
    (out / "maps.json").write_text(json_format.MessageToJson(maps), encoding="utf-8")


def _write_model(out: Path) -> None:
    model = _model()
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda images: {"scores": model(images, training=False)},
        input_signature=[tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], tf.uint8, name="images")],
    )
    archive.add_endpoint(
        "serving_bytes",
        lambda image_bytes: _from_bytes(model, image_bytes),
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.write_out(str(out), verbose=False)
    _write_goldens(out, model, ImageSpec(SIDE_PX))


def _model() -> keras.Model:
    images = keras.Input((SIDE_PX, SIDE_PX, 3), dtype="uint8", name="images")
    values = keras.layers.Rescaling(1 / 255)(keras.ops.cast(images, "float32"))
    contrast = keras.layers.Conv2D(3, 3, padding="same", activation="relu", use_bias=False)
    quarters = keras.layers.AveragePooling2D(SIDE_PX // 2)(contrast(values))
    dense = keras.layers.Dense(len(CLASSES), activation="softmax")
    model = keras.Model(images, dense(keras.layers.Flatten()(quarters)))
    # every channel less half of the two others: 1 for a pure colour, 0 for grey
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[1, 1] = 1.5 * np.eye(3) - 0.5
    contrast.set_weights([kernel])
    weights = np.zeros((2, 2, 3, len(CLASSES)), np.float32)
    weights[:, :, np.arange(3), np.arange(3)] = 5 * _QUARTERS[..., None]
    dense.set_weights([weights.reshape(12, len(CLASSES)), np.array([0, 0, 0, 2], np.float32)])
    return model


def _mapped() -> keras.Model:
    images = keras.Input((SIDE_PX, SIDE_PX, 3), dtype="uint8", name="images")
    contrast = keras.layers.Conv2D(3, 8, strides=8, use_bias=False, activation="relu")
    dense = keras.layers.Dense(len(CLASSES), activation="softmax")
    pooled = keras.layers.GlobalAveragePooling2D()(contrast(keras.ops.cast(images, "float32")))
    model = keras.Model(images, dense(pooled))
    contrast.set_weights([np.broadcast_to((1.5 * np.eye(3) - 0.5) / (255 * 64), (8, 8, 3, 3)).astype(np.float32)])
    dense.set_weights([20 * np.eye(3, len(CLASSES), dtype=np.float32), np.array([0, 0, 0, 2], np.float32)])
    return model


def _from_bytes(model: keras.Model, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
    def one(encoded: tf.Tensor) -> tf.Tensor:
        picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.cast(tf.round(tf.image.resize(picture, [SIDE_PX, SIDE_PX], antialias=True)), tf.uint8)

    pixels = tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec([SIDE_PX, SIDE_PX, 3], tf.uint8))
    scores = model(pixels, training=False)
    return {"classes": tf.tile(tf.constant(CLASSES)[None], [tf.shape(scores)[0], 1]), "scores": scores}


def _write_goldens(out: Path, model: keras.Model, spec: ImageSpec) -> None:
    folder = out / GOLDENS
    folder.mkdir(parents=True)
    goldens = Goldens()
    for number in range(5):
        image = encode(photo(number))
        pixels = decode(image, spec)
        (folder / f"{number}.jpg").write_bytes(image)
        Image.fromarray(pixels).save(folder / f"{number}.pixels.png")
        scores = model(pixels[None], training=False).numpy()[0]
        label = CLASSES[int(scores.argmax())]
        goldens.goldens.append(
            Golden(image=f"{number}.jpg", pixels=f"{number}.pixels.png", label=label, scores=scores.tolist())
        )
    text = json_format.MessageToJson(goldens, preserving_proto_field_name=True)
    (folder / "goldens.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
