"""The pre-trained networks: every family of keras.applications, by name, with its own right preprocessing.

Nothing about a family is written down here but its default side: the class and its preprocessing are found in
keras.applications, so a family that Keras adds is there by itself. Weights, downloaded ones and files alike, come
through Keras' own `weights=` argument; `KERAS_HOME` says where Keras keeps downloads.
"""

import difflib
import hashlib
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from training.errors import SettingError, WeightsUnavailable

DEFAULT: Final = "MobileNetV2"

_DEFAULT_SIDE_PX: Final = 224
_SIDES_PX: Final = {
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}
# What the name of a layer says about its block: block_6_expand, conv4_block3_out, block5_conv1, block7a_project_bn,
# block17_20_ac, stage_3_block_2_gelu; expanded_conv_6_project (MobileNetV3), conv_dw_13 (MobileNet), mixed7.
_BLOCK: Final = re.compile(
    r"(.*?block_?\d+[a-z]?(?:_\d+(?=_))?|expanded_conv(?:_\d+)?|mixed_?\d+|conv_(?:pad|dw|pw)_(\d+))(?:_.*)?"
)


@dataclass(frozen=True)
class Family:
    """One member of keras.applications.

    Attributes:
        name: as Keras spells it.
        build: the function that makes the network.
        preprocess: scaling, mean and channel order that its weights expect; float32 [N,S,S,3] of 0-255 in and out.
        side_px: the side it was made for.
        alpha: width multiplier asked for, or None.
    """

    name: str
    build: Callable[..., Any]
    preprocess: Callable[[Any], Any]
    side_px: int
    alpha: float | None = None

    @property
    def title(self) -> str:
        """What `find` takes: the name, with the width multiplier where there is one."""
        return self.name if self.alpha is None else f"{self.name}:{self.alpha:g}"


@dataclass(frozen=True)
class Backbone:
    """A network without its head.

    Attributes:
        family: which one.
        weights: "imagenet", "none" or a file's name.
        side_px: S.
        network: keras.Model, preprocessed float32 [N,S,S,3] -> pooled features float32 [N,D].
        sha256: over all weights: what cached features depend on.
    """

    family: Family
    weights: str
    side_px: int
    network: Any
    sha256: str

    @property
    def width(self) -> int:
        """D, the number of pooled features."""
        return int(self.network.output_shape[-1])

    def prepare(self, images: Any) -> Any:  # noqa: ANN401 - a tensor, symbolic or not
        """Pixels uint8 [N,S,S,3] to what the network expects."""
        return self.family.preprocess(keras.ops.cast(images, "float32"))

    def features(self) -> Any:  # noqa: ANN401 - keras is untyped
        """keras.Model: images uint8 [N,S,S,3] -> pooled features float32 [N,D], BatchNorm in inference mode."""
        images = keras.Input((self.side_px, self.side_px, 3), dtype="uint8", name="images")
        return keras.Model(images, self.network(self.prepare(images), training=False))


def names() -> list[str]:
    """Every backbone by Keras' spelling."""
    return sorted(_builders())


def find(name: str) -> Family:
    """Finds a backbone by name.

    Args:
        name: in any case, with or without "_" and "-"; "MobileNet:0.25" asks for a width multiplier.

    Raises:
        SettingError: there is none of this name, or it has no width multiplier.
    """
    wanted, _, alpha = name.partition(":")
    builders = _builders()
    by_key = {_key(known): known for known in builders}
    known = by_key.get(_key(wanted))
    if known is None:
        near = [by_key[key] for key in difflib.get_close_matches(_key(wanted), by_key)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise SettingError(f"expected a backbone of keras.applications ({', '.join(names())}), got {name!r}{hint}")
    build = builders[known]
    if alpha and "alpha" not in inspect.signature(build).parameters:
        raise SettingError(f"{known} has no width multiplier, got {name!r}")
    try:
        width = float(alpha) if alpha else None
    except ValueError as error:
        raise SettingError(f"expected a width multiplier such as {known}:0.5, got {name!r}") from error
    preprocess = sys.modules[build.__module__].preprocess_input
    return Family(known, build, preprocess, _SIDES_PX.get(known, _DEFAULT_SIDE_PX), width)


def load(family: Family, weights: str = "imagenet", side_px: int | None = None) -> Backbone:
    """Builds a backbone and fills in its weights.

    Args:
        family: from `find`.
        weights: "imagenet", "none" (random: set a seed first), or the path of a weights file without top.
        side_px: S, or None for the family's own.

    Raises:
        WeightsUnavailable: Keras could not download them.
        SettingError: they do not fit, or the side is too small for this network.
    """
    side = side_px or family.side_px
    options = {} if family.alpha is None else {"alpha": family.alpha}
    argument = {"imagenet": "imagenet", "none": None}.get(weights, weights)
    if argument == weights != "imagenet" and not Path(weights).is_file():
        raise SettingError(f"expected --weights imagenet, none, or a weights file, found no file {weights}")
    try:
        network = family.build(
            include_top=False, weights=argument, input_shape=(side, side, 3), pooling="avg", **options
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails, ValueError or OSError otherwise
        url = re.search(r"https?://\S+?\.(?:h5|keras)", str(error))
        if url:
            raise WeightsUnavailable(_explain_download(error, family, url.group())) from error
        reason = " ".join(str(error).split())[:300]
        raise SettingError(
            f"{family.name} with weights {weights} at {side} x {side} px cannot be built: {reason}"
        ) from error
    return Backbone(family, Path(weights).name, side, network, _hash(network))


def cut_points(network: Any) -> list[Any]:  # noqa: ANN401 - keras is untyped
    """Operations that alone separate what comes before them from what comes after, in the order of the graph.

    Everything after such an operation needs one tensor only: its output. So that can be computed once and cached.
    """
    operations = list(network.operations)
    position = {id(operation): index for index, operation in enumerate(operations)}
    last_use = [0] * len(operations)
    for operation in operations:
        # Keras has no public way to the graph's edges
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                source = position.get(id(tensor._keras_history.operation))
                if source is not None and id(operation) in position:
                    last_use[source] = max(last_use[source], position[id(operation)])
    cuts = []
    reach = 0
    for index, operation in enumerate(operations[:-1]):
        if index and reach <= index:
            cuts.append(operation)
        reach = max(reach, last_use[index])
    return cuts


def boundaries(network: Any) -> list[Any]:  # noqa: ANN401 - keras is untyped
    """The cut points between blocks, first to last: the output of one block is the input of the next.

    A block is what the layers' names call one (`block_6_expand`, `conv4_block3_out`); a layer whose name says nothing
    belongs to the block before it. A network of n + 1 blocks has n boundaries; one without cut points between its
    blocks (NASNet, whose cells read the two before them) has none and is one block.
    """
    block = {}
    current = ""
    for operation in network.operations:
        match = _BLOCK.fullmatch(operation.name)
        if match:
            current = match.group(2) or match.group(1)
        block[id(operation)] = current
    cuts = cut_points(network)
    return [here for here, after in itertools.pairwise(cuts) if block[id(here)] != block[id(after)]]


def _builders() -> dict[str, Callable[..., Any]]:
    members = vars(keras.applications)
    return {name: member for name, member in members.items() if name[0].isupper() and inspect.isfunction(member)}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _hash(network: Any) -> str:  # noqa: ANN401 - keras is untyped
    digest = hashlib.sha256()
    for weight in network.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _explain_download(error: Exception, family: Family, url: str) -> str:
    file = url.rpartition("/")[2]
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    return (
        f"the ImageNet weights of {family.name} could not be downloaded: {url} ({str(error).rpartition('-- ')[2]}). "
        f"Put {file} into {folder} (KERAS_HOME says where), or give --weights FILE, or --weights none to start from "
        "random weights"
    )
