"""The heads of plain requests, which are answered without gunicorn's parser and without Flask; see plain.py.

A plain request is POST /classify over HTTP/1.1 with one image as its body: a head that arrived in one piece, is short,
says nothing out of the ordinary, and names the length of a small body. Reading is strict: whatever is not known for
certain is left to gunicorn and Flask, whose way is the definition of what is right.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_LARGEST_BODY_BYTES: Final = 1 << 20
"""Small enough to read all of it before asking whether it could be answered in time."""
_HEAD: Final = re.compile(
    rb"POST /classify(?:\?([A-Za-z0-9_.~=&-]*))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)\r\n"
)
_LENGTH: Final = re.compile(rb"\r\nContent-Length:[\t ]*([1-9][0-9]{0,6})[\t ]*\r\n", re.IGNORECASE)
_END: Final = b"\r\n\r\n"
_UNUSUAL: Final = frozenset({"Transfer-Encoding", "Expect", "Upgrade", "Te", "Trailer", "Http2-Settings"})
_RAW: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What stands before an image, but for the image's length. Requests that begin alike share it.

    Attributes:
        args: the query.
        headers: by name, with capitals as in Content-Type.
    """

    args: dict[str, str]
    headers: dict[str, str]


def read_head(start: bytes) -> tuple[Head, int, int] | None:
    """Reads the start of a request; None when it is not plain, or not yet.

    Returns:
        The head, how many bytes it has, and how many the image.
    """
    end = start.find(_END)
    length = _LENGTH.search(start, 0, end + len(_END) // 2) if end >= 0 else None
    if length is None or (body_bytes := int(length[1])) > _LARGEST_BODY_BYTES:
        return None
    first, last = length.span(1)
    end += len(_END)
    head = _read(start[:first] + start[last:end])
    return None if head is None else (head, end, body_bytes)


@lru_cache(maxsize=_REMEMBERED)
def _read(head: bytes) -> Head | None:
    """Reads a head from which the length of the body was taken out; None when it is not plain."""
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    headers: dict[str, str] = {}
    for line in found[2].decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.title()
        if name in headers or name in _UNUSUAL:
            return None
        headers[name] = value.strip(" \t")
    if headers.pop("Content-Length") or headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    kind = headers.get("Content-Type", "").lower()
    if ";" in kind or not (kind in _RAW or kind.startswith("image/")):
        return None
    args: dict[str, str] = {}
    if found[1]:
        for pair in found[1].decode("ascii").split("&"):
            name, _, value = pair.partition("=")
            args.setdefault(name, value)  # the first counts, as in Flask
    return Head(args, headers)
