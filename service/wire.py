"""Frames between fronts and engines over a Unix socket.

A frame is a fixed header (length of the rest, kind, job number) and a body. Numbers are chosen by the front and unique
on one connection. Times are CLOCK_MONOTONIC seconds, which all processes of one machine share.

    front -> engine   CLASSIFY   when it was sent, deadline, top_k, flags, the image file or its pixels
                      CANCEL     nobody waits for this job any more
    engine -> front   SLOT       the first frame: where this front counts in the engine's backlog (service/backlog.py)
                      RESULT     a serialized protos Result, or its error
                      RUNNING    a job that runs alone is about to: if the engine dies now, that job did it
                      DRAINING   send nothing more; what was sent is answered, then close
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEADER: Final = struct.Struct("!IBQ")
_CLASSIFY: Final = struct.Struct("!ddHB")
_LENGTH_BYTES: Final = 4

PIXELS_SHA256: Final = 1
"""Flag: also return the digest of the decoded pixels."""
SOLO: Final = 2
"""Flag: an engine died while it held this job, so run it alone."""
PIXELS: Final = 4
"""Flag: the image is no file but the model's input, uint8 [S, S, 3], row by row."""
FLOAT32: Final = 8
"""Flag, beside PIXELS: the values are little-endian float32."""
ALL_SCORES: Final = 16
"""Flag: also return every score, in the order of the version's class names."""
ACTIVATION_MAP: Final = 32
"""Flag: also return the class activation map of the best label; such a job runs alone, too."""
WHOLE_HOST: Final = 64
"""Flag: nothing else is in flight at any engine, so the cores of all of them may work on this image."""
BULK: Final = 128
"""Flag: everybody who is not goes first."""


class Kind(IntEnum):
    """What a frame says."""

    CLASSIFY = 1
    CANCEL = 2
    RESULT = 3
    RUNNING = 4
    DRAINING = 5
    SLOT = 6


@dataclass(frozen=True, slots=True)
class Classify:
    """Body of a CLASSIFY frame."""

    sent: float
    deadline: float
    top_k: int
    flags: int
    image: bytes


def frame(kind: Kind, number: int, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(_HEADER.size - _LENGTH_BYTES + len(body), kind, number) + body


def classify_header(  # noqa: PLR0917 - as many as the frame has fields
    number: int, sent: float, deadline: float, top_k: int, flags: int, image_bytes: int
) -> bytes:
    """All of a CLASSIFY frame but the image, which is sent behind it without being copied."""
    length = _HEADER.size - _LENGTH_BYTES + _CLASSIFY.size + image_bytes
    return _HEADER.pack(length, Kind.CLASSIFY, number) + _CLASSIFY.pack(sent, deadline, top_k, flags)


def parse_classify(body: bytes | memoryview) -> Classify:
    """Reads the body of a CLASSIFY frame."""
    sent, deadline, top_k, flags = _CLASSIFY.unpack_from(body)
    return Classify(sent, deadline, top_k, flags, bytes(body[_CLASSIFY.size :]))


class FrameReader:
    """Cuts a byte stream into frames, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[Kind, int, bytes]]:
        """Takes what was received and returns (kind, number, body) of every frame that is now complete."""
        self._buffer += chunk
        frames = []
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _HEADER.size:
                length, kind, number = _HEADER.unpack_from(view, start)
                end = start + _LENGTH_BYTES + length
                if end > len(view):
                    break
                frames.append((Kind(kind), number, bytes(view[start + _HEADER.size : end])))
                start = end
        del self._buffer[:start]
        return frames
