"""The one decode: an image file's bytes to the pixels that a model sees.

Training, evaluation and serving all call `decode`; nothing else in Graft turns a file into pixels for a model. In
order: allow-list of formats, pixel limit (from the header, before any pixel is decoded), first frame, JPEG scaled
decoding where the image is at least twice too big, RGB (grey, palette, CMYK and 16-bit converted; transparency laid on
white), resize, EXIF orientation. Scaling to floats, mean and channel order are not here: they are in the model's graph.
"""

import io
import re
import struct
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import CorruptImage, EmptyImage, ImageTooLarge, UnsupportedFormat
from service.settings import MAX_PIXELS

DECODE_VERSION: Final = 2
"""Rises whenever `decode` gives other pixels for the same bytes and spec. What was trained with an older one is served
with that: 1 resized by Pillow whatever it was."""

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""What we read. JPEG includes MPO, a JPEG with more pictures behind it, which many phones write into .jpg files."""

_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
"""How the files start, to tell a damaged image from something that is none."""

Pixels = NDArray[np.uint8]

_RESAMPLE: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
_RESIZE: Final = ("squash", "crop")
_MOST_READS: Final = 200_000
"""Of Pillow in one header, 2 to 5 for each segment, chunk or block, at up to 1 us; an ordinary photo takes 50."""
_MOST_COSTLY: Final = 16
"""Exif segments, to each of which Pillow copies those before it, or colour profiles, each of which it unpacks."""
_MOST_STRIPS: Final = 1 << 19
"""Or tiles, of one TIFF file; Pillow takes about 4 us for each. A picture has no more than rows, of each band."""
_STRIPS: Final = (273, 324)
"""The tags of where strips and tiles begin."""
_TIFF: Final = (b"II*\0", b"II\0*", b"MM\0*", b"MM*\0", b"MM\0+", b"II+\0")
"""How Pillow's TIFF files start, two of them against the standard."""
_BIG_TIFF: Final = b"+"
_MOST_MARKERS: Final = 100_000
_MOST_RLE_PIXELS: Final = 16_000_000
"""Of a BMP with run lengths, which Pillow decodes in Python: a second for 10 million, out of a file of any size."""
_MOST_SCANS: Final = 100
"""Of one JPEG file; a progressive one as encoders write it has about ten."""
_START_OF_SCAN: Final = b"\xff\xda"
_END_OF_IMAGE: Final = 0xD9
_ALONE: Final = (0xD8, _END_OF_IMAGE)
"""Markers without a segment behind them."""
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""Neither a byte of the data between markers, nor a restart within it, nor what stands for nothing."""
_CHUNK_HEAD: Final = 8
"""Bytes of the length and the name of a PNG's chunk."""
_read = io.BytesIO.read
_EXIF_ORIENTATION: Final = 0x0112
_FIRST_LYING: Final = 5
"""Orientations from here to 8 exchange width and height."""
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LONGEST_PHOTO_PX: Final = 1 << 14
"""The resizer scales the height first, so a long picture would take it much memory; without it the process ends."""
_BILINEAR: Final = ResizeAlg.convolution(FilterType.bilinear)


class _OfThread(threading.local):
    """A resizer keeps its buffer, and is for one thread at a time."""

    def __init__(self) -> None:
        self.resizer = Resizer()


_of_thread: Final = _OfThread()

# The limit is ours, checked from the header with an error of its own; Pillow's would warn or raise in between.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged EXIF and TIFF tags and then ignores them, which is what we want of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class ImageSpec:
    """How pixels are made from a picture. Part of a version's manifest.

    Attributes:
        side_px: S, the side of the square result.
        resize: "squash" scales the whole picture to the square; "crop" scales the short side to S and keeps the middle.
        resample: Pillow's filter by name; all of them average over what they leave out, so thin lines survive.
        decode_version: which definition of `decode`; DECODE_VERSION or one before it.

    Raises:
        ValueError: an unknown word or a side outside 8-4096.
    """

    side_px: int
    resize: str = "squash"
    resample: str = "bilinear"
    decode_version: int = DECODE_VERSION

    def __post_init__(self) -> None:
        if not 8 <= self.side_px <= 4096:
            raise ValueError(f"side_px must be 8-4096. Received: {self.side_px}")
        if self.resize not in _RESIZE:
            raise ValueError(f"resize must be one of {', '.join(_RESIZE)}. Received: {self.resize!r}")
        if self.resample not in _RESAMPLE:
            raise ValueError(f"resample must be one of {', '.join(_RESAMPLE)}. Received: {self.resample!r}")
        if not 1 <= self.decode_version <= DECODE_VERSION:
            raise ValueError(f"decode_version must be 1-{DECODE_VERSION}. Received: {self.decode_version}")


@dataclass(frozen=True)
class Region:
    """A rectangle of an upright picture, in its pixels; a middle square of an odd rest begins at half a pixel."""

    left: float
    top: float
    width: float
    height: float


def decode(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decodes one image file.

    Args:
        data: the whole file.
        spec: how to resize.
        max_pixels: refuse a picture whose header claims more, before decoding it.

    Returns:
        uint8 [S, S, 3], RGB, upright.

    Raises:
        EmptyImage, UnsupportedFormat, CorruptImage, ImageTooLarge: what is wrong with the file.
    """
    return np.asarray(decode_picture(data, spec, max_pixels))


def decode_picture(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`decode` as an RGB Pillow image of S by S, for whoever wants to draw it."""
    if not data:
        raise EmptyImage("expected an image file, got 0 bytes")
    picture = _open(data, max_pixels)
    try:
        return _shape(picture, spec)
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, ZeroDivisionError) as error:
        raise CorruptImage(f"the {picture.format} image is truncated or damaged") from error
    except MemoryError as error:
        width, height = picture.size
        raise ImageTooLarge(f"not enough memory to decode a picture of {width} x {height} pixels") from error


def seen_region(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Region:
    """The part of the upright picture that `decode` keeps, from the file's header.

    `decode` crops a JPEG after scaling it down, so its edges may lie up to one scaled pixel from these.

    Raises:
        UnsupportedFormat, CorruptImage, ImageTooLarge: as `decode`.
    """
    picture = _open(data, max_pixels)
    # of a TIFF Pillow gives the upright size
    lying = picture.format != "TIFF" and _orientation(picture) >= _FIRST_LYING
    width, height = reversed(picture.size) if lying else picture.size
    left, top, right, bottom = _box((width, height), spec) or (0, 0, width, height)
    return Region(left, top, right - left, bottom - top)


class _File(io.BytesIO):
    """A file that Pillow cannot be held up with: it goes through headers in Python, as long as there is another part.

    Counting what it reads, instead of walking through the file before it does, leaves nothing that one of two parsers
    sees and the other does not.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads_left = _MOST_READS
        self._costly_left = _MOST_COSTLY

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise CorruptImage("the file is in far more segments, chunks or blocks than an image has")
        piece = _read(self, size)
        if len(piece) >= _CHUNK_HEAD and (piece[:6] == b"Exif\0\0" or piece[4:8] == b"iCCP"):
            self._costly_left -= 1
            if self._costly_left < 0:
                raise CorruptImage(f"expected at most {_MOST_COSTLY} Exif segments or colour profiles, got more")
        return piece


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if data.startswith(_TIFF) and (strips := _strips(data)) > _MOST_STRIPS:
        raise CorruptImage(f"expected a TIFF file of at most {_MOST_STRIPS} strips or tiles, got {strips}")
    file = _File(data)
    try:
        picture = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        name = next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)
        if name:
            raise CorruptImage(f"a {name} file whose header is truncated or damaged ({len(data)} bytes)") from error
        raise UnsupportedFormat(f"expected {_names()}, got {_describe(data)}") from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError) as error:
        raise CorruptImage(f"the header of the image is damaged ({len(data)} bytes)") from error
    width, height = picture.size
    if width < 1 or height < 1:
        raise CorruptImage(f"the image claims {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageTooLarge(f"expected at most {max_pixels} pixels, got {width} x {height} = {width * height}")
    if width * height > _MOST_RLE_PIXELS and picture.format == "BMP" and picture.tile[0][0] == "bmp_rle":
        raise ImageTooLarge(f"expected at most {_MOST_RLE_PIXELS} pixels of a compressed BMP, got {width} x {height}")
    if picture.format != "PNG":  # whose chunks go on behind the pixels; of others only these are still to be read
        file.reads_left = sys.maxsize
    # each may go over all of the pixels in a few bytes, so a small file could take minutes
    if data.count(_START_OF_SCAN) > _MOST_SCANS and picture.format in {"JPEG", "MPO"} and _scans(data) > _MOST_SCANS:
        raise CorruptImage(f"expected a JPEG file of at most {_MOST_SCANS} scans, got more")
    return picture


def _strips(data: bytes) -> int:
    """How many strips or tiles the first picture of a TIFF file has; 0 where it does not say, or is too short."""
    order, big = "<" if data[:1] == b"I" else ">", data[2:3] == _BIG_TIFF
    entry = struct.Struct(order + ("HHQ8x" if big else "HHL4x"))
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    except (struct.error, OverflowError):
        return 0
    at += 8 if big else 2
    there = min(entries, _MOST_READS, (len(data) - at) // entry.size)
    found = entry.iter_unpack(data[at : at + there * entry.size])
    return max((count for tag, _, count in found if tag in _STRIPS and count < len(data)), default=0)


def _scans(data: bytes) -> int:
    """How many scans a JPEG file has until its end, or that they are too many.

    What its segments hold, such as a thumbnail, does not count. An end without a scan before it is none: decoders go on
    behind tables that stand alone.

    Raises:
        CorruptImage: there are far more markers than an image has.
    """
    at = scans = markers = 0
    while scans <= _MOST_SCANS and (marker := _MARKER.search(data, at)):
        markers += 1
        if markers > _MOST_MARKERS:
            raise CorruptImage(f"expected a JPEG file of at most {_MOST_MARKERS} markers, got more")
        at, kind = marker.end(), data[marker.end() - 1]
        if kind == _END_OF_IMAGE and scans:
            break
        scans += kind == _START_OF_SCAN[1]
        if kind not in _ALONE:
            at += int.from_bytes(data[at : at + 2])
    return scans


def _shape(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    side = spec.side_px
    # JPEG only: the decoder itself scales by 1/2, 1/4 or 1/8 while both sides stay at least S. Part of the definition,
    # so training sees the same; measured in docs/decisions.md.
    picture.draft("RGB", (side, side))
    # Before asking for the orientation: Pillow turns TIFF upright while loading, and then says so.
    picture.load()
    orientation = _orientation(picture)
    whole = _resizable(picture)
    # What can wait until the picture is small does: colours on white, stretching, turning. The result is a square
    # whichever way up the picture was.
    small = _rgb(_resized(whole, spec), whole)
    return small.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else small


def _resized(whole: Image.Image, spec: ImageSpec) -> Image.Image:
    """What is kept of the picture, S by S.

    Most photos by a resizer several times as fast as Pillow's, from which a tenth of the values differ, by 1 of 255.
    """
    side, box = spec.side_px, _box(whole.size, spec)
    photo = whole.mode == "RGB" and max(whole.size) <= _LONGEST_PHOTO_PX and spec.resample == "bilinear"
    if not photo or spec.decode_version == 1:
        return whole.resize((side, side), _RESAMPLE[spec.resample], box=box)
    small = Image.new("RGB", (side, side))
    left, top, right, bottom = box or (0, 0, *whole.size)
    kept = CropBox(left, top, right - left, bottom - top)
    _of_thread.resizer.resize_pil(whole, small, ResizeOptions(_BILINEAR, crop_box=kept))
    return small


def _box(size: tuple[int, int], spec: ImageSpec) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of what is kept of a picture; None for all of it."""
    if spec.resize == "squash":
        return None
    width, height = size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    return left, top, left + edge, top + edge


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture; Pillow raises many types here
        return 1


def _resizable(picture: Image.Image) -> Image.Image:
    """The picture in a mode whose pixels can be averaged: RGB, RGBA (averaged by weight of alpha), I or F."""
    if picture.mode in ("RGB", "I", "F"):
        return picture
    if picture.mode.startswith("I;16"):
        # convert("L") would clip everything above 255 to white; point() knows only the native order of bytes
        native = picture if picture.mode == "I;16" else picture.convert("I")
        return native.point(lambda value: value / 257).convert("L").convert("RGB")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _rgb(small: Image.Image, whole: Image.Image) -> Image.Image:
    if small.mode == "RGBA":
        white = Image.new("RGBA", small.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, small).convert("RGB")
    return small if small.mode == "RGB" else _stretched(small, whole)


def _stretched(small: Image.Image, whole: Image.Image) -> Image.Image:
    """32-bit grey has no agreed white: what fits 8 or 16 bits is read as that, anything else is stretched."""
    values = np.asarray(small, np.float64)
    low, high = (float(extreme) for extreme in whole.getextrema())  # type: ignore[arg-type]  # one band, so numbers
    if not np.isfinite([low, high]).all() or not np.isfinite(values).all():
        raise ValueError("not finite")
    if small.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    grey = (values - low) * (255.0 / (high - low or 1.0))
    return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")


def _names() -> str:
    return f"a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"


def _describe(data: bytes) -> str:
    start = data[:16].lstrip()
    if start[:1] in (b"{", b"["):
        return f"what looks like JSON ({len(data)} bytes)"
    if start[:1] == b"<":
        return f"what looks like HTML, XML or SVG ({len(data)} bytes)"
    if start[:4] == b"%PDF":
        return f"a PDF ({len(data)} bytes)"
    return f"{len(data)} bytes that are none of these"
