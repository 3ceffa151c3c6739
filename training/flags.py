"""Flags that several commands of `python -m training` share, by the group that they stand in under `--help`."""

import argparse
import os
from pathlib import Path

from service.settings import LOCAL_ENGINES
from training.settings import PRECISIONS, STRATEGIES, Settings


def add_data(parser: argparse.ArgumentParser) -> None:
    """DATA."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="a folder of class folders; or train/val[/test] folders of class folders; or a .csv with "
        "path,label[,split]; or a .zip of the first",
    )


def add_cache(group: "argparse._ArgumentGroup") -> None:
    """--cache."""
    group.add_argument(
        "--cache",
        type=Path,
        default=_default_cache(),
        help="folder for features that were computed and archives that were unpacked; may be deleted at any time; "
        "environment: GRAFT_CACHE",
    )


def add_strategy(group: "argparse._ArgumentGroup") -> None:
    """--strategy."""
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="auto: measures what the data are like, tries what is worth it within --time-budget, and says why the "
        "winner won. linear: logistic regression on the frozen backbone's features. svm: a linear support vector "
        "machine on an earlier layer. multilayer: logistic regression on several depths together. partial: a head, "
        "then the last blocks with it. full: then the whole network. scratch: a basic network without "
        "pre-training, for comparison",
    )


def add_budget(group: "argparse._ArgumentGroup") -> None:
    """--time-budget."""
    group.add_argument(
        "--time-budget",
        type=Number(1.0, 1e7),
        default=Settings.time_budget,
        metavar="SECONDS",
        help="that auto may spend on deciding and training, from the features on; a linear head is always fitted",
    )


def add_network(group: "argparse._ArgumentGroup") -> None:
    """Backbone, weights and input."""
    add_backbone(group)
    group.add_argument(
        "--side",
        type=WholeNumber(8, 4096),
        default=argparse.SUPPRESS,
        metavar="PX",
        help="side of the square input in pixels (default: the backbone's own; 64 for scratch)",
    )
    group.add_argument(
        "--resize",
        choices=("crop", "squash"),
        default="crop",  # by evidence: docs/decisions.md
        help="crop: the middle square, in proportion. squash: the whole picture, out of proportion",
    )


def add_backbone(group: "argparse._ArgumentGroup") -> None:
    """--backbone and --weights."""
    group.add_argument(
        "--backbone",
        default="MobileNetV2",
        help="any network of keras.applications, such as VGG16, ResNet50 or EfficientNetB0; NAME:ALPHA for a width "
        "multiplier, such as MobileNet:0.5",
    )
    group.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet (downloaded by Keras into KERAS_HOME, or found there), none (random), or a weights file "
        "without top in Keras' format",
    )


def add_gradient(group: "argparse._ArgumentGroup") -> None:
    """What `partial`, `full` and `scratch` train by."""
    depth = group.add_mutually_exclusive_group()
    depth.add_argument(
        "--unfreeze",
        type=WholeNumber(1, 1000),
        default=argparse.SUPPRESS,
        metavar="K",
        help="blocks that partial trains, from the end (default: half of them; auto: a quarter where half would "
        "take too long)",
    )
    depth.add_argument(
        "--freeze",
        type=WholeNumber(1, 1000),
        default=argparse.SUPPRESS,
        metavar="K",
        help="blocks that partial does not train, from the start; in place of --unfreeze",
    )
    group.add_argument(
        "--epochs",
        type=WholeNumber(1, 100_000),
        default=argparse.SUPPRESS,
        metavar="N",
        help="passes over the train split (default: 12 for partial and full, more for few images; at most 30 for "
        "scratch, which stops when validation no longer improves, and keeps the best)",
    )
    group.add_argument(
        "--batch-size", type=WholeNumber(1, 4096), default=32, metavar="N", help="images per gradient step"
    )
    group.add_argument(
        "--learning-rate",
        type=Number(1e-8, 10.0),
        default=argparse.SUPPRESS,
        metavar="RATE",
        help="highest, of Adam (default: 1e-4 to 1e-3 for partial and 3e-5 to 3e-4 for full, the higher the less the "
        "frozen features are worth, 1e-3 for scratch); partial and full warm up to it and cool down, full trains "
        "earlier blocks at less of it",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the gradients' computation, on all GPUs; what is exported is float32. auto: bfloat16 where every GPU "
        "computes in it (compute capability 8.0), float32 elsewhere",
    )
    group.add_argument(
        "--flip",
        action="store_true",
        help="also train on mirrored pictures (partial, full, scratch); right for photos, wrong for documents, text "
        "and hands",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="start anew where the same command was interrupted, and not go on from there",
    )
    group.add_argument(
        "--tensorboard",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="each epoch's loss and accuracy for TensorBoard, in DIR/train and DIR/validation; a folder for each run",
    )


def add_evidence(group: "argparse._ArgumentGroup") -> None:
    """Split, seed and evaluation."""
    group.add_argument("--seed", type=WholeNumber(0, 2**31 - 1), default=0, help="of the split and everything random")
    group.add_argument(
        "--test-fraction",
        type=Number(0.0, 0.9),
        default=0.15,
        metavar="SHARE",
        help="of the images, to test on; used where DATA gives no test images",
    )
    group.add_argument(
        "--validation-fraction",
        type=Number(0.0, 0.9),
        default=0.15,
        metavar="SHARE",
        help="of the images, to validate on; used where DATA gives no validation images",
    )
    add_group_regex(group)
    exact = [name for name in LOCAL_ENGINES if name != "openvino/int8"]  # which --quantize tests besides
    group.add_argument("--engine", choices=exact, default="auto", help="what evaluates the export")


def add_group_regex(group: "argparse._ArgumentGroup") -> None:
    """--group-regex."""
    group.add_argument(
        "--group-regex",
        default=argparse.SUPPRESS,
        metavar="REGEX",
        help="images whose paths, relative to DATA, match with the same captured text belong together (a patient, a "
        "scanner, a document) and are never parted: '(patient[0-9]+)'",
    )


class WholeNumber:
    """An argparse type: a whole number between two bounds, both included."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> int:
        """Reads a command line's word; raises argparse.ArgumentTypeError."""
        value = int(text) if text.lstrip("-").isdigit() else self._low - 1
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"expected a whole number of {self._low} to {self._high}, got {text!r}")
        return value


class Number:
    """An argparse type: a number between two bounds, both included."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, text: str) -> float:
        """Reads a command line's word; raises argparse.ArgumentTypeError."""
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(f"expected a number of {self._low:g} to {self._high:g}, got {text!r}")
        return value


def _default_cache() -> Path:
    return Path(os.environ.get("GRAFT_CACHE") or Path.home() / ".cache" / "graft")
