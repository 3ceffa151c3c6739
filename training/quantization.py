"""The network once more in 8 bits, for CPUs with instructions for that: by NNCF, beside the SavedModel of a version.

Weights and what flows between layers become integers, in ranges that some of the training images show (post-training
quantization; Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"). It is kept only where it reproduces the goldens and is not significantly worse on the test images.
"""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

import numpy as np

from service import host
from service.engine.runtime import candidates
from service.errors import BrokenVersion
from service.image import ImageSpec, Pixels
from service.version import QUANTIZED
from training import champion, evaluation, pixels, quiet
from training.dataset import Image
from training.evaluation import Prediction

ENGINE: Final = "openvino/int8"
_MOST_IMAGES: Final = 300
"""NNCF's own default."""
_BATCH: Final = 32


def can_test() -> bool:
    """Whether this CPU computes in 8 bits as those do that serve it; others let sums overflow and answer otherwise."""
    return ENGINE in {one.name for one in candidates("auto", host.cpu_flags(), has_gpu=False)}


def write(folder: Path, images: Sequence[Image], spec: ImageSpec, on_progress: Callable[[int, int], None]) -> None:
    """Quantizes the SavedModel in a version directory and writes the result beside it.

    Args:
        folder: the version directory.
        images: training images; up to 300 of them, chosen evenly from all classes, show the ranges.
        spec: how pixels are made.
        on_progress: called with (images done, images in all).
    """
    ov = quiet.import_openvino()
    import nncf  # noqa: PLC0415 - not for who does not quantize, and only after the above

    logging.getLogger("nncf").setLevel(logging.ERROR)
    by_class = sorted(images, key=lambda image: image.label)
    chosen = [by_class[at] for at in np.unique(np.linspace(0, len(images) - 1, _MOST_IMAGES).astype(int))]
    shown = np.concatenate(list(pixels.batches(chosen, spec, _BATCH)))

    def one(at: int) -> Pixels:
        on_progress(at + 1, len(shown))
        return shown[at : at + 1]

    network = ov.Core().read_model(folder)
    with redirect_stdout(io.StringIO()):  # it draws bars of its own
        quantized = nncf.quantize(network, nncf.Dataset(range(len(shown)), one), subset_size=len(shown))
    ov.save_model(quantized, folder / QUANTIZED, compress_to_fp16=False)


def remove(folder: Path) -> None:
    """Removes what `write` has written."""
    for suffix in (".xml", ".bin"):
        (folder / QUANTIZED).with_suffix(suffix).unlink(missing_ok=True)


def test(folder: Path, predictions: Sequence[Prediction], on_progress: Callable[[int, int], None]) -> list[Prediction]:
    """Asks the quantized network of a version directory about the test images.

    Args:
        folder: the version directory, its hashes up to date.
        predictions: of these images by the network as it was.
        on_progress: called with (images done, images in all).

    Returns:
        Its own.

    Raises:
        BrokenVersion: it does not reproduce the goldens, or is significantly worse.
    """
    answers, _ = evaluation.predict(folder, ENGINE, [one.image for one in predictions], on_progress)
    won, lost = champion.discordant(answers, predictions)
    if (chance := champion.p_value(lost, won)) < champion.SIGNIFICANT:
        raise BrokenVersion(
            f"{lost} of {len(answers)} test images are answered rightly only without it, {won} only with it "
            f"(p = {chance:.3g})"
        )
    return answers
