"""Class activation maps: which places of a picture spoke for a class.

A head that is linear on mean-pooled feature maps can be asked place by place (Zhou et al. 2016). With feature maps F_d
[h,w,D] of one or several depths, their rows W_d of the kernel and the bias b,

    logits[c] = b[c] + sum over d of mean over places of F_d @ W_d[:,c]
    maps[h,w,c] = b[c] + sum over d of enlarged(F_d @ W_d[:,c])

so maps are logits, place by place, and their mean over places is the logit, exactly: enlarging keeps the mean. That is
the definition, for the trainer, which exports it as a signature, and for engines that read no other than
`serving_default`. Each engine proves it on the goldens before it shows its first map.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.engine.goldens import check_scores, golden_pixels
from service.engine.runtime import Runtime, Scores
from service.errors import BrokenVersion, NoActivationMap
from service.image import Pixels
from service.version import Version

Maps = NDArray[np.float32]

_TOLERANCE: Final = 0.001
"""Maps are computed in float32 whatever the engine's precision, so the tolerance is that of float32."""


class ActivationMaps:
    """The maps of a loaded version. Nothing is loaded or computed for them before `prepare`.

    Args:
        version: what is loaded.
        runtime: where.
    """

    def __init__(self, version: Version, runtime: Runtime) -> None:
        self._version = version
        self._runtime = runtime
        self._compute: Callable[[Pixels], Maps] | None = None
        self._refusal: NoActivationMap | None = None

    @property
    def ready(self) -> bool:
        """Whether `prepare` has been done."""
        return self._compute is not None

    def prepare(self) -> None:
        """Makes ready what computes them and proves on the goldens that they add up to the recorded scores.

        Raises:
            NoActivationMap: the version has none, or they do not add up here. This is found out once.
        """
        if self._refusal is None:
            try:
                self._compute = self._proven()
            except NoActivationMap as error:
                self._refusal = error
        if self._refusal is not None:
            raise NoActivationMap(str(self._refusal))

    def map(self, pixels: Pixels, number: int) -> NDArray[np.float32]:
        """The map of one class.

        Args:
            pixels: uint8 [S,S,3].
            number: of the class.

        Returns:
            float32 [h,w] of 0 to 1, see `share`.
        """
        assert self._compute is not None  # noqa: S101 - prepared first
        return share(self._compute(pixels[np.newaxis])[0], number)

    def _proven(self) -> Callable[[Pixels], Maps]:
        if not self._version.manifest.HasField("class_activation_maps"):
            raise NoActivationMap(
                "expected a version with class activation maps; this one was exported before there were any, or its "
                "head is not linear on pooled feature maps of several places"
            )
        compute = self._runtime.class_activation_maps()
        try:
            goldens = self._version.goldens()
            check_scores(
                lambda pixels: _softmax(compute(pixels).mean(axis=(1, 2))),
                golden_pixels(self._version, goldens),
                goldens,
                len(self._version.manifest.class_names),
                _TOLERANCE,
            )
        except BrokenVersion as error:
            raise NoActivationMap(f"these maps are not proven to add up to the recorded scores: {error}") from error
        return compute


def share(maps: Maps, number: int) -> NDArray[np.float32]:
    """What each place adds to one class, as against the classes' average, since a softmax cannot see what all share.

    Args:
        maps: float32 [h,w,C].
        number: of the class.

    Returns:
        float32 [h,w]: 1 for the place that speaks most for the class, 0 where nothing does or something speaks against.
    """
    against_average = np.maximum(maps[..., number] - maps.mean(axis=-1), 0)
    return np.asarray(against_average / (against_average.max() or 1.0), np.float32)


def combine(features: Sequence[Any], kernel: Any, bias: Any, einsum: Callable[..., Any] = np.einsum) -> Any:  # noqa: ANN401 - arrays or tensors
    """The definition above, for arrays or, with `tf.einsum`, for tensors.

    Args:
        features: by depth, [N,h,w,D] each.
        kernel: [sum of D, C], the depths' rows in order.
        bias: [C].
        einsum: of the library that the arguments are of.

    Returns:
        [N,h,w,C] with the height and width of the largest depth.
    """
    height, width = (max(int(one.shape[axis]) for one in features) for axis in (1, 2))
    maps, first = bias, 0
    for one in features:
        last = first + int(one.shape[3])
        small = einsum("nhwd,dc->nhwc", one, kernel[first:last])
        down, across = enlargement(int(one.shape[1]), height), enlargement(int(one.shape[2]), width)
        maps = maps + einsum("th,nhwc,uw->ntuc", down, small, across)
        first = last
    return maps


def enlargement(small: int, large: int) -> NDArray[np.float32]:
    """Enlarges a row of `small` cells to `large` ones: float32 [large, small], to multiply with.

    Each large cell is the average, over its extent, of what is interpolated linearly between the small cells' centres.
    So the mean stays what it was for any two sizes, which no ordinary resize promises.
    """
    if small == large:
        return np.eye(small, dtype=np.float32)
    centres, edges = (np.arange(small) + 0.5) / small, np.arange(large + 1) / large
    points = np.unique(np.concatenate([centres, edges]))
    weights = np.stack([np.interp(points, centres, one) for one in np.eye(small)], axis=1)
    # exact: between two points the weights are straight lines
    pieces = (weights[1:] + weights[:-1]) / 2 * np.diff(points)[:, None]
    cells = np.zeros((large, small))
    np.add.at(cells, ((points[1:] + points[:-1]) / 2 * large).astype(int), pieces)
    return np.asarray(cells * large, np.float32)


def _softmax(logits: NDArray[np.float32]) -> Scores:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
