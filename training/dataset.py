"""The labelled images that can be trained on, and those that cannot, with the reason.

`index` decodes every file once with the service's own decode, so that exactly what the service would refuse is left
out here, and keeps of each image what splitting and looking for duplicates need: never its bytes or pixels. Which files
there are is training/listing.py; who is on which side is training/split.py.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image as Pillow
from PIL.Image import Image as Picture
from PIL.Image import Resampling

from service.errors import GraftError
from service.image import FORMATS, ImageSpec, decode_picture
from training.archive import unpack
from training.errors import DataError
from training.listing import Listed, Listing, list_csv, list_folder

THUMBNAIL_SIDE: Final = 16

MAX_FILE_BYTES: Final = 512 * 2**20
"""A larger file is not read: the decode's 100 million pixels are 300 MB as the plainest TIFF."""

# Enough for a 9 x 8 hash and a 16 x 16 thumbnail, and JPEGs decode at 1/8 of their size. The decode version is the one
# that the thresholds for copies were measured with: a bit of a hash may hang on 1 of 255.
_SPEC: Final = ImageSpec(side_px=64, decode_version=1)
_EXIF_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = (5, 6, 7, 8)
# Of a TIFF Pillow gives the upright size; in a PNG it may decode the whole picture in search of EXIF.
_WITH_EXIF: Final = ("JPEG", "MPO", "WEBP")
# What is under way at any time; bounds memory whatever the number of images.
_BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Image:
    """One readable image.

    Attributes:
        path: the file.
        label: its class.
        split: "train", "validation", "test", or None where DATA does not say.
        sha256: of the file's bytes, lower-case hexadecimal.
        dhash: 64 bits; bit set where a grey 9 x 8 reduction grows brighter to the right.
        thumbnail: 256 bytes, a grey 16 x 16 reduction, row by row.
        width_px: of the whole picture, upright; 0 where nobody has looked.
        height_px: likewise.
        mode: Pillow's word for how the file stores a pixel, such as "RGB", "L" or "CMYK".
    """

    path: Path
    label: str
    split: str | None
    sha256: str
    dhash: int
    thumbnail: bytes
    width_px: int = 0
    height_px: int = 0
    mode: str = "RGB"


@dataclass(frozen=True)
class Rejected:
    """One file that cannot be trained on: `code` as the service would say it, `reason` in words."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """What DATA holds. Images and rejected files are sorted by their path relative to `root`."""

    images: tuple[Image, ...]
    rejected: tuple[Rejected, ...]
    class_names: tuple[str, ...]
    root: Path

    @property
    def sha256(self) -> str:
        """Over the sorted pairs of label and content hash: the same images under other names give the same."""
        digest = hashlib.sha256()
        for label, content in sorted((image.label, image.sha256) for image in self.images):
            digest.update(f"{label}\0{content}\n".encode())
        return digest.hexdigest()

    def relative(self, path: Path) -> str:
        """A file's name for people: relative to the root, with "/"; the whole path where it lies elsewhere."""
        return printable(path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path))


def printable(path: str) -> str:
    r"""A path with bytes that are no UTF-8 as \xNN, so that it can be written anywhere."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def index(data: Path, cache: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Reads what DATA holds.

    Args:
        data: a folder of class folders, a folder of split folders, a .csv or a .zip.
        cache: where archives are unpacked; not touched otherwise.
        on_progress: called with (files done, files in all) from the calling thread.

    Raises:
        DataError: DATA is none of these, or too little of it can be read.
    """
    listing = _list(data, cache)
    if not listing.files:
        raise DataError(f"expected images in the class folders of {listing.root}; found none")
    _check_labels(listing)
    rejected = [Rejected(path, "NO_LABEL", "it lies outside every class folder") for path in listing.unlabelled]
    images = []
    for done, result in enumerate(_read_all(listing.files), 1):
        if isinstance(result, Image):
            images.append(result)
        else:
            rejected.append(result)
        if on_progress is not None:
            on_progress(done, len(listing.files))
    _check_readable(listing, images, rejected)
    rejected.sort(key=lambda one: one.path)
    return Dataset(tuple(images), tuple(rejected), tuple(sorted(listing.labels)), listing.root)


def _list(data: Path, cache: Path) -> Listing:
    if data.is_dir():
        return list_folder(data)
    if not data.is_file():
        raise DataError(f"expected a folder, a .csv or a .zip file at {data}; there is nothing")
    if data.suffix.lower() == ".csv":
        return list_csv(data)
    if data.suffix.lower() == ".zip":
        return list_folder(unpack(data, cache), unwrap=True)
    raise DataError(f"expected a folder, a .csv or a .zip file; {data} is none of these")


def _check_labels(listing: Listing) -> None:
    for label in listing.labels:
        if not label.isprintable():  # also what is not UTF-8: it could not be written into a manifest
            raise DataError(f"expected class names of printable characters; found {label!r} in {listing.root}")
    if len(listing.labels) < 2:
        name = next(iter(listing.labels))
        raise DataError(
            f"expected at least two classes in {listing.root}; found only {name!r}. "
            f"If {name!r} itself holds the class folders, give that folder"
        )


def _check_readable(listing: Listing, images: list[Image], rejected: list[Rejected]) -> None:
    empty = sorted(listing.labels - {image.label for image in images})
    if not empty:
        return
    first = f"; the first of {len(rejected)}: {rejected[0].path}: {rejected[0].reason}" if rejected else ""
    if not images:
        raise DataError(f"none of the {len(listing.files)} files in {listing.root} can be read as an image{first}")
    raise DataError(f"expected images in every class; no readable one in: {', '.join(empty)}{first}")


def _read_all(files: Iterable[Listed]) -> Iterator[Image | Rejected]:
    """Reads in the order given. Threads suffice: Pillow lets go of the interpreter while it decodes."""
    rest = iter(files)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while batch := list(islice(rest, _BATCH)):
            yield from pool.map(_read, batch)


def _read(file: Listed) -> Image | Rejected:
    try:
        if file.path.is_dir():
            return Rejected(file.path, "UNREADABLE", "expected a file, or a folder that can be read")
        if not file.path.is_file():
            return Rejected(file.path, "NOT_FOUND", "there is no such file")
        if (size := file.path.stat().st_size) > MAX_FILE_BYTES:
            return Rejected(file.path, "IMAGE_TOO_LARGE", f"expected at most {MAX_FILE_BYTES} bytes, got {size}")
        content = file.path.read_bytes()
        grey = decode_picture(content, _SPEC).convert("L")
        width, height, mode = _header(content)
    except GraftError as error:
        return Rejected(file.path, error.code, error.detail)
    except OSError as error:
        return Rejected(file.path, "UNREADABLE", error.strerror or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever one file does to a decoder, the others are still worth training on
        return Rejected(file.path, "CORRUPT_IMAGE", f"{type(error).__name__}: {error}")
    sha256 = hashlib.sha256(content).hexdigest()
    return Image(file.path, file.label, file.split, sha256, _dhash(grey), _thumbnail(grey), width, height, mode)


def _header(content: bytes) -> tuple[int, int, str]:
    """Width and height of the upright picture, and its mode, without decoding it: 0.1 ms for a JPEG photo."""
    picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
    width, height = picture.size
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION) if picture.format in _WITH_EXIF else None
    except Exception:  # noqa: BLE001 - as in the decode: a picture with broken metadata is still a picture
        orientation = None
    return (height, width, picture.mode) if orientation in _SIDEWAYS else (width, height, picture.mode)


def _dhash(grey: Picture) -> int:
    # Bilinear, not box: on four-classes it finds 24 near-identical pairs within distance 3 against 22.
    small = np.asarray(grey.resize((9, 8), Resampling.BILINEAR))
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def _thumbnail(grey: Picture) -> bytes:
    return grey.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Resampling.BOX).tobytes()
