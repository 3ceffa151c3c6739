"""Small random changes of pictures that pixels are trained on, none of which changes what a picture shows.

Each is decided by (seed, epoch, image) alone: the same in whatever thread, on whatever device, and in a run that was
interrupted.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from service.image import Pixels

_SMALLEST: Final = 0.8
_BRIGHTNESS: Final = 0.15


@dataclass(frozen=True)
class Augmentation:
    """How pictures are changed.

    Attributes:
        flip: mirror left and right in one of two cases. Off by default: text, documents and hands must not be.
    """

    flip: bool = False

    def __str__(self) -> str:
        """In words, for the manifest."""
        flip = "flip left-right, " if self.flip else ""
        return f"{flip}crop to {_SMALLEST:.0%}-100 % of the sides, brightness +-{_BRIGHTNESS:.0%}"

    def apply(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Changes one picture.

        Args:
            pixels: uint8 [S,S,3].
            random: decides; three to five numbers are drawn.

        Returns:
            uint8 [S,S,3].
        """
        side = pixels.shape[0]
        width, height = random.uniform(_SMALLEST, 1.0, 2) * side
        left, top = random.uniform(0.0, 1.0, 2) * (side - np.array([width, height]))
        gain = random.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS)
        box = (float(left), float(top), float(left + width), float(top + height))
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=box)
        if self.flip and random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        table = np.clip(np.arange(256) * gain, 0, 255).round().astype(np.uint8)
        return np.asarray(table[np.asarray(picture)], np.uint8)
