"""service/wire.py: frames arrive as they were sent, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire import PIXELS_SHA256, SOLO, Classify, FrameReader, Kind, classify_header, frame, parse_classify

_NUMBERS = st.integers(0, 2**64 - 1)
_FRAMES = st.lists(st.tuples(st.sampled_from(Kind), _NUMBERS, st.binary(max_size=60)), max_size=8)


@given(_FRAMES, st.data())
def test_frames_cut_anywhere_arrive_the_same(frames: list[tuple[Kind, int, bytes]], data: st.DataObject) -> None:
    """Whatever the pieces in which a stream is received, the same frames come out, in order and once."""
    stream = b"".join(frame(*one) for one in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader, arrived = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        arrived += reader.feed(stream[start:end])
    assert arrived == frames


@given(_FRAMES)
def test_frames_arrive_byte_by_byte(frames: list[tuple[Kind, int, bytes]]) -> None:
    """The worst cut of all: one byte at a time."""
    reader, arrived = FrameReader(), []
    for byte in b"".join(frame(*one) for one in frames):
        arrived += reader.feed(bytes([byte]))
    assert arrived == frames


@given(
    _NUMBERS,
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.integers(1, 65535),
    st.sampled_from([0, PIXELS_SHA256, SOLO, PIXELS_SHA256 | SOLO]),
    st.binary(max_size=100),
)
def test_a_job_is_read_as_it_was_written(  # noqa: PLR0917 - as many as the frame has fields
    number: int, sent: float, deadline: float, top_k: int, flags: int, image: bytes
) -> None:
    """The header with the image sent behind it is one CLASSIFY frame that holds exactly what was asked."""
    arrived = FrameReader().feed(classify_header(number, sent, deadline, top_k, flags, len(image)) + image)
    assert [(kind, its_number) for kind, its_number, _ in arrived] == [(Kind.CLASSIFY, number)]
    assert parse_classify(arrived[0][2]) == Classify(sent, deadline, top_k, flags, image)


def test_an_incomplete_frame_waits() -> None:
    """All but the last byte of a frame is no frame; with the last byte it is."""
    sent = frame(Kind.RESULT, 7, b"body")
    reader = FrameReader()
    assert reader.feed(sent[:-1]) == []
    assert reader.feed(sent[-1:]) == [(Kind.RESULT, 7, b"body")]


def test_an_unknown_kind_is_an_error() -> None:
    """A stream that is not ours is not taken for frames."""
    broken = bytearray(frame(Kind.RESULT, 7))
    broken[4] = 99
    with pytest.raises(ValueError, match="99"):
        FrameReader().feed(bytes(broken))
