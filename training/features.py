"""Pooled features of the frozen backbone, at one depth or several: computed once per image, kept on disk.

A cached row is found by what it depends on and nothing else: the image file's SHA-256, the ImageSpec with its decode
version, the backbone, a hash of its weights, and the depth. Rows lie in shards, one .npz file for up to 1024 images,
written under a temporary name and renamed: a killed run leaves whole shards only, and a damaged one (each carries
checksums) is deleted and computed anew. What comes back lies in a file where it is large (training/matrix.py).
"""

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.image import ImageSpec
from training import depths, forward, leftovers, matrix, pixels
from training.backbones import Backbone
from training.dataset import Image

Features = NDArray[np.float32]

BATCH: Final = 32
"""Images per forward pass. On two cores 32 runs MobileNetV2 a third faster than 8, and 64 no faster than 32."""

_SHARD: Final = 1024
_UNFINISHED: Final = ".unfinished-"


def compute(
    images: Sequence[Image],
    backbone: Backbone,
    spec: ImageSpec,
    cache: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Features:
    """The features of images, from the cache where they are there.

    Args:
        images: in the order wanted.
        backbone: frozen; its preprocessing is part of the graph.
        spec: how pixels are made; its side is the backbone's.
        cache: the cache's root.
        on_progress: called with (images computed, images to compute) from the calling thread.

    Returns:
        float32 [N,D].

    Raises:
        DataError: a file changed or vanished since it was indexed.
    """
    (computed,) = compute_depths(images, backbone, spec, cache, (depths.FINAL,), on_progress=on_progress).values()
    return computed


def compute_depths(
    images: Sequence[Image],
    backbone: Backbone,
    spec: ImageSpec,
    cache: Path,
    layers: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Features]:
    """The pooled features of images at several depths, in one forward pass over the images that any depth lacks.

    Args:
        images: in the order wanted.
        backbone: frozen; its preprocessing is part of the graph.
        spec: how pixels are made; its side is the backbone's.
        cache: the cache's root.
        layers: from training/depths.py.
        on_progress: called with (images computed, images to compute) from the calling thread.

    Returns:
        float32 [N,D] by depth, in the order of `layers`.

    Raises:
        DataError: a file changed or vanished since it was indexed.
        OSError: no disk for them.
    """
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image.sha256, []).append(row)
    widths = dict(zip(layers, depths.widths(backbone, layers), strict=True))
    folders = {layer: cache / "features" / _key(backbone, spec, layer) for layer in layers}
    result = {layer: matrix.empty(len(images), widths[layer], cache) for layer in layers}
    missing: dict[str, None] = {}  # in the order of the images
    lacking = []
    for layer, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        leftovers.remove(folder, _UNFINISHED)
        left = dict(rows)
        for digests, features in _cached(folder, widths[layer]):
            for digest, feature in zip(digests, features, strict=True):
                result[layer][left.pop(digest, [])] = feature
            matrix.release(result[layer])
        if left:
            lacking.append(layer)
            missing |= dict.fromkeys(left)
    wanted = [images[rows[sha256][0]] for sha256 in missing]
    ends = np.cumsum([widths[layer] for layer in lacking])
    done = 0
    for shard in _computed(wanted, backbone, spec, lacking, on_progress):
        digests = [image.sha256 for image in wanted[done : done + len(shard)]]
        done += len(shard)
        for layer, features in zip(lacking, np.split(shard, ends[:-1], axis=1), strict=True):
            _write(folders[layer], digests, features)
            for sha256, feature in zip(digests, features, strict=True):
                result[layer][rows[sha256]] = feature
            matrix.release(result[layer])
    return result


def _computed(
    images: Sequence[Image],
    backbone: Backbone,
    spec: ImageSpec,
    layers: Sequence[str],
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[Features]:
    """Shards of up to 1024 images, the depths side by side."""
    if not images:
        return
    run = forward.build(depths.model(backbone, layers), len(images))
    shard: list[Features] = []
    done = 0
    for batch in pixels.batches(images, spec, BATCH):
        shard.append(run(batch))
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(images))
        if done % _SHARD == 0 or done == len(images):
            yield np.concatenate(shard)
            shard = []


def _key(backbone: Backbone, spec: ImageSpec, layer: str) -> str:
    what = {"backbone": backbone.family.name, "weights": backbone.sha256, **asdict(spec)}
    if layer != depths.FINAL:
        what["layer"] = layer
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _cached(folder: Path, width: int) -> Iterator[tuple[list[str], Features]]:
    for shard in sorted(folder.glob("*.npz")):
        try:
            with shard.open("rb") as stream, np.load(stream) as stored:
                digests, features = stored["sha256"], stored["features"]
            if digests.shape != (len(features), 32) or features.shape[1:] != (width,):
                raise ValueError("not a shard")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            shard.unlink(missing_ok=True)
            continue
        yield [digest.tobytes().hex() for digest in digests], features


def _write(folder: Path, sha256: Sequence[str], features: Features) -> None:
    digests = np.frombuffer(bytes.fromhex("".join(sha256)), np.uint8).reshape(-1, 32)
    descriptor, temporary = tempfile.mkstemp(prefix=leftovers.prefix(_UNFINISHED), dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, sha256=digests, features=features)
        Path(temporary).rename(folder / f"{hashlib.sha256(digests.tobytes()).hexdigest()[:32]}.npz")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
