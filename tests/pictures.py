"""Pictures for tests: good ones of every kind, and files that are wrong in every way that we could think of."""

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 20, 30), "green": (30, 220, 40), "blue": (10, 40, 225), "grey": (128, 128, 128)}
"""A plain picture of each class of the tests' model."""


@dataclass(frozen=True)
class BadFile:
    """A file that is no picture for us.

    Attributes:
        name: what is wrong with it.
        data: the file.
        code: the error's code.
        says: a part of the error's message.
    """

    name: str
    data: bytes
    code: str
    says: str


def encode(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture as a file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def plain(colour: str, size: tuple[int, int] = (60, 40)) -> bytes:
    """A PNG file of one colour; the tests' model gives it the colour's name as its label."""
    return encode(Image.new("RGB", size, COLOURS[colour]), "PNG")


def photo(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture with colours that run into each other and some grain: no two seeds look or score alike."""
    random = np.random.default_rng(seed)
    corners = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    smooth = np.asarray(corners.resize(size, Image.Resampling.BILINEAR), np.int16)
    grain = random.integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG file with a header of our choice."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def with_orientation(picture: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """A file that says in EXIF how the picture must be turned to be upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))


def _bad_files() -> list[BadFile]:
    jpeg, formats = encode(photo(7)), "expected a JPEG, PNG, WEBP, GIF, TIFF or BMP file"
    bad = [
        BadFile("no bytes", b"", "EMPTY_IMAGE", "expected an image file, got 0 bytes"),
        BadFile("text", b"This is not a picture.\n", "UNSUPPORTED_FORMAT", formats),
        BadFile("one byte", b"\xff", "UNSUPPORTED_FORMAT", formats),
        BadFile("json", b'{"a": 1}', "UNSUPPORTED_FORMAT", "got what looks like JSON"),
        BadFile("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "UNSUPPORTED_FORMAT", "HTML, XML or SVG"),
        BadFile("pdf", b"%PDF-1.7 \n1 0 obj", "UNSUPPORTED_FORMAT", "got a PDF"),
        BadFile("ppm", encode(photo(7), "PPM"), "UNSUPPORTED_FORMAT", formats),
        BadFile("base64 not decoded", base64.b64encode(jpeg), "UNSUPPORTED_FORMAT", formats),
        BadFile("jpeg start", jpeg[:3], "CORRUPT_IMAGE", "a JPEG file whose header is truncated or damaged"),
        BadFile("jpeg header only", jpeg[:40], "CORRUPT_IMAGE", "damaged"),
        BadFile("png of 0 x 0", png(0, 0), "CORRUPT_IMAGE", "damaged"),
        BadFile("png of 0 x 5", png(0, 5), "CORRUPT_IMAGE", "damaged"),
        BadFile("gif of 0 x 0", b"GIF89a" + bytes(7), "CORRUPT_IMAGE", "damaged"),
        BadFile("png without its pixels", png(100, 100, b"few"), "CORRUPT_IMAGE", "damaged"),
        BadFile("png of 30000 x 30000", png(30000, 30000), "IMAGE_TOO_LARGE", "got 30000 x 30000 = 900000000"),
    ]
    bad += [
        BadFile(f"{kind} cut in half".lower(), file[: len(file) // 2], "CORRUPT_IMAGE", "damaged")
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
        for file in [encode(photo(7), kind)]
    ]
    return bad


def _odd_files() -> dict[str, bytes]:
    picture = photo(3)
    red, deep = Image.new("RGB", (50, 40), COLOURS["red"]), np.linspace(0, 65535, 50 * 40).reshape(40, 50)
    alpha = red.convert("RGBA")
    alpha.putalpha(90)
    exif = {f"exif orientation {number}": with_orientation(picture, number) for number in range(1, 9)}
    return exif | {
        "cmyk jpeg": encode(picture.convert("CMYK")),
        "grey jpeg": encode(picture.convert("L")),
        "grey and alpha png": encode(picture.convert("LA"), "PNG"),
        "alpha png": encode(alpha, "PNG"),
        "palette png": encode(picture.convert("P"), "PNG"),
        "palette gif with transparency": encode(picture.convert("P"), "GIF", transparency=3),
        "black and white png": encode(picture.convert("1"), "PNG"),
        "16-bit png": encode(Image.fromarray(deep.astype(np.uint16)), "PNG"),
        "16-bit tiff": encode(Image.fromarray(deep.astype(np.uint16)), "TIFF"),
        "float tiff": encode(Image.fromarray((deep / 65535).astype(np.float32)), "TIFF"),
        "animated gif": encode(picture, "GIF", save_all=True, append_images=[red.resize(picture.size)]),
        "animated webp": encode(picture, "WEBP", save_all=True, append_images=[red.resize(picture.size)]),
        "webp": encode(picture, "WEBP"),
        "tiff": encode(picture, "TIFF"),
        "bmp": encode(picture, "BMP"),
        "mpo": encode(picture, "MPO", save_all=True, append_images=[red]),
        "progressive jpeg": encode(picture, progressive=True),
        "one pixel": encode(Image.new("RGB", (1, 1)), "PNG"),
        "very wide": encode(Image.new("RGB", (20000, 1)), "PNG"),
    }


BAD_FILES = _bad_files()
ODD_FILES = _odd_files()
"""Files that are unusual and must be answered."""
