"""The three forms of a `POST /classify` body, read into images.

An image that cannot be read out of the body becomes an error in its place; the others go on.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from flask import Request

from service.errors import ImageError, InvalidBase64, InvalidRequest, UnsupportedMedia
from service.http.waiting import whole_body
from service.request import check_count

_RAW: Final = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types, beside image/*, whose body is one image. The last is what `curl --data-binary` says of any file."""


@dataclass(frozen=True)
class Upload:
    """One image as it came.

    Attributes:
        filename: what the client calls it; may be empty.
        image: the file's bytes, or why there are none.
    """

    filename: str
    image: bytes | ImageError


def read_uploads(request: Request, max_images: int) -> list[Upload]:
    """Reads the body by its content type.

    Raises:
        UnsupportedMedia: a content type that is none of ours.
        InvalidRequest: a body that is not what its content type says, or holds no image, or too many.
    """
    kind = request.mimetype
    if kind.startswith("image/") or kind in _RAW:
        return [Upload("", whole_body())]
    if kind == "multipart/form-data":
        return _multipart(request)
    if kind == "application/json":
        return _json(whole_body(), max_images)
    raise UnsupportedMedia(
        "expected an image (image/*, application/octet-stream), multipart/form-data or application/json, "
        f"got {kind[:100]!r}"
    )


def _multipart(request: Request) -> list[Upload]:
    uploads = [
        Upload(file.filename or "", file.read()) for file in (file for _, file in request.files.items(multi=True))
    ]
    if not uploads:
        raise InvalidRequest("expected at least one file in the multipart form, found none")
    return uploads


def _json(body: bytes, max_images: int) -> list[Upload]:
    expected = 'expected {"images": [{"b64": "..."}]}'
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{expected}, got malformed JSON: {error}") from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list) or not images:
        raise InvalidRequest(f"{expected}, got JSON without a list of images")
    check_count(len(images), max_images)
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("b64"), str):
            raise InvalidRequest(f'{expected}, but image {index} is not an object with a string "b64"')
    return [Upload(str(image.get("filename", "")), _decode(image["b64"])) for image in images]


def _decode(text: str) -> bytes | ImageError:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return InvalidBase64(f"expected an image in base64, got {len(text)} characters that are not: {error}")
