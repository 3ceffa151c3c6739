"""service/http/head.py, plain.py: the shortcut takes only what it reads as gunicorn does, and answers as Flask does."""

import io
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import ParseException
from hypothesis import given
from hypothesis import strategies as st

from service.http.head import read_head
from tests.pictures import plain
from tests.running import Service

_START = b"POST /classify HTTP/1.1\r\nHost: a\r\n"
_LENGTH = b"Content-Length: 3\r\n"


@pytest.mark.parametrize(
    "head",
    [
        _START + b"\r\n",
        _START + b"Content-Length: 0\r\n\r\n",
        _START + b"Content-Length: 03\r\n\r\n",
        _START + b"Content-Length: +3\r\n\r\n",
        _START + b"Content-Length: 1_0\r\n\r\n",
        _START + b"Content-Length: 3, 3\r\n\r\n",
        _START + b"Content-Length: 9999999\r\n\r\n",
        _START + b"Content-Length: 99999999999999999999\r\n\r\n",
        _START + _LENGTH + _LENGTH + b"\r\n",
        _START + _LENGTH + b"Transfer-Encoding: chunked\r\n\r\n",
        _START + _LENGTH + b"Expect: 100-continue\r\n\r\n",
        _START + _LENGTH + b"Connection: close\r\n\r\n",
        _START + _LENGTH + b"Connection: keep-alive, Upgrade\r\n\r\n",
        _START + _LENGTH + b"Content-Type: multipart/form-data; boundary=a\r\n\r\n",
        _START + _LENGTH + b"Content-Type: image/png; charset=utf-8\r\n\r\n",
        _START + _LENGTH + b"Content-Type: application/json\r\n\r\n",
        _START + _LENGTH + b"Host: b\r\n\r\n",
        _START + _LENGTH + b"Content_Length: 4\r\n\r\n",
        _START + _LENGTH + b"Content-Length : 4\r\n\r\n",
        _START + _LENGTH + b"X: a\r\n folded\r\n\r\n",
        _START + _LENGTH + b"X: \x00\r\n\r\n",
        _START + _LENGTH + b"X: \xe9\r\n\r\n",
        _START + _LENGTH + b"X: a\nContent-Length: 4\r\n\r\n",
        _START + _LENGTH + b"X: a\rb\r\n\r\n",
        _START + _LENGTH,
        (_START + _LENGTH).replace(b"\r\n", b"\n") + b"\n",
        b"\r\n" + _START + _LENGTH + b"\r\n",
        _START.replace(b"POST", b"post") + _LENGTH + b"\r\n",
        _START.replace(b"1.1", b"1.0") + _LENGTH + b"\r\n",
        _START.replace(b"/classify", b"/classify/") + _LENGTH + b"\r\n",
        _START.replace(b"/classify", b"/classify%20") + _LENGTH + b"\r\n",
        _START.replace(b"/classify", b"/classify?model=a%62") + _LENGTH + b"\r\n",
        _START.replace(b"/classify", b"/classify?model=a+b") + _LENGTH + b"\r\n",
        _START.replace(b"/classify", b"http://a/classify") + _LENGTH + b"\r\n",
    ],
)
def test_what_is_unusual_is_left_to_gunicorn(head: bytes) -> None:
    """Anything that could be read in two ways, or that needs an answer of its own, is not plain."""
    assert read_head(_START + _LENGTH + b"\r\n") is not None
    assert read_head(head + b"abc") is None


def _latin_1(text: str) -> bytes:
    return text.encode("latin-1")


_VALUES = st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=8).map(_latin_1)
_NAMES = st.one_of(
    st.sampled_from(["Content-Length", "content-length", "Content-Type", "Connection", "TE", "X-Request-Id", "Accept"]),
    st.text("abcZ-_ :", min_size=1, max_size=6),
).map(str.encode)
_LINES = st.lists(
    st.one_of(
        st.sampled_from([_LENGTH, b"Content-Type: image/png\r\n", b"content-length:12\r\n", b"X-Request-Id: a\t\r\n"]),
        st.tuples(_NAMES, st.sampled_from([b":", b": ", b" :"]), _VALUES).map(lambda parts: b"".join(parts) + b"\r\n"),
    ),
    max_size=5,
)
_TARGETS = st.one_of(st.just(""), st.text("?=&a1%+/.~", max_size=10)).map(lambda text: f"/classify{text}".encode())


@given(_TARGETS, _LINES)
def test_what_is_plain_is_read_as_gunicorn_reads_it(target: bytes, lines: list[bytes]) -> None:
    """Path, query, headers and the place where the body begins and ends are those of gunicorn's own parser."""
    whole = b"POST " + target + b" HTTP/1.1\r\n" + b"".join(lines) + b"\r\n" + b"x" * 20
    found = read_head(whole)
    if found is None:
        return
    parsed = next(get_parser(Config(), _Source(whole), ("127.0.0.1", 1)))
    assert (parsed.method, parsed.path, parsed.version) == ("POST", "/classify", (1, 1))
    head, head_bytes, body_bytes = found
    assert {name.title(): value for name, value in parsed.headers} == {
        **head.headers,
        "Content-Length": str(body_bytes),
    }
    assert parsed.body.read() == whole[head_bytes : head_bytes + body_bytes]
    pairs = [pair.partition("=") for pair in parsed.query.split("&")] if parsed.query else []
    assert {name: value for name, _, value in reversed(pairs)} == head.args
    assert not parsed.should_close()


class _Source(io.BytesIO):
    """What gunicorn's parser takes for a connection."""

    recv = io.BytesIO.read


def test_the_strategy_makes_plain_and_refused_requests() -> None:
    """The property above is not empty: requests like its own are plain, and gunicorn refuses others."""
    assert read_head(b"POST /classify?a=1&a=2 HTTP/1.1\r\ncontent-length:12\r\nX-Request-Id: a\t\r\n\r\n") is not None
    with pytest.raises(ParseException):
        next(get_parser(Config(), _Source(_START + b"Content-Length : 4\r\n\r\n"), ("127.0.0.1", 1)))


@contextmanager
def _connected(service: Service) -> Iterator[socket.socket]:
    host, _, port = service.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def _request(image: bytes, query: str = "", more: str = "") -> bytes:
    head = f"POST /classify{query} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n"
    return f"{head}{more}\r\n".encode() + image


def _read(stream: io.BufferedIOBase) -> tuple[int, dict[str, str], Any]:
    """The next answer on a connection."""
    status = int(stream.readline().split()[1])
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    return status, headers, json.loads(stream.read(int(headers["Content-Length"])))


@pytest.mark.parametrize("cut", [1, 30, -40, -1], ids=["first byte", "in the head", "in the body", "last byte"])
def test_a_request_may_arrive_in_pieces(service: Service, cut: int) -> None:
    """Wherever a request is cut, its answer is the same, and the connection takes the next one."""
    whole = _request(plain("green"))
    with _connected(service) as connection, connection.makefile("rb") as stream:
        for _ in range(2):
            connection.sendall(whole[:cut])
            connection.sendall(whole[cut:])
            status, _, body = _read(stream)
            assert (status, body["results"][0]["label"]) == (200, "green")


def test_requests_sent_at_once_are_answered_in_turn(service: Service) -> None:
    """Plain and other requests behind one another on one connection, all sent before the first answer is read."""
    colours = ("red", "green", "blue")
    readyz = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
    sent = b"".join(_request(plain(colour)) for colour in colours) + readyz + _request(plain("grey"))
    with _connected(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(sent)
        answers = [_read(stream) for _ in range(5)]
    assert [status for status, _, _ in answers] == [200] * 5
    labels = [body["results"][0]["label"] for _, _, body in answers if "results" in body]
    assert labels == [*colours, "grey"]
    assert answers[3][2]["ready"] is True


@pytest.mark.parametrize(
    ("query", "image", "more"),
    [
        ("", plain("red"), ""),
        ("?top_k=2&pixels_sha256=1", plain("red"), "X-Request-Id: mine\r\n"),
        ("?model=pets&version=1", plain("blue"), "X-Request-Priority: bulk\r\nX-Request-Timeout-Ms: 20000\r\n"),
        ("?model=nobody", plain("red"), ""),
        ("?top_k=0", plain("red"), ""),
        ("", plain("red"), "X-Request-Priority: high\r\n"),
        ("", b"no image", ""),
        ("?activation_map=1", plain("red"), ""),
        ("", b"\0" * 600_000, ""),
    ],
)
def test_the_answer_is_that_of_the_long_way(service: Service, query: str, image: bytes, more: str) -> None:
    """Status, headers and body are the same with and without a header that makes the request unusual."""
    answers = []
    for way in ("", "TE: trailers\r\n"):
        with _connected(service) as connection, connection.makefile("rb") as stream:
            connection.sendall(_request(image, query, more + way))
            status, headers, body = _read(stream)
        for result in body.get("results", []):
            result.pop("timing_ms", None)
        if "mine" not in more:
            assert headers.pop("X-Request-Id")
        for name in ("Date", "Content-Length"):  # the length follows from the timing
            assert headers.pop(name)
        answers.append((status, headers, body))
    assert answers[0] == answers[1]


def test_a_body_that_never_comes_ends_the_connection(service: Service) -> None:
    """The caller's own time for the whole request is over: it is told so, and then hung up on."""
    with _connected(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(_request(plain("red"), more="X-Request-Timeout-Ms: 200\r\n")[:-10])
        status, headers, body = _read(stream)
        assert (status, headers["Connection"], body["code"]) == (504, "close", "DEADLINE_EXCEEDED")
        assert stream.read() == b""
