"""The terms of an HTTP request: query and headers that mean the same on every path that classifies."""

import time
from typing import Final, Protocol

import gevent
from flask import request

from service.errors import DeadlineExceeded, GraftError, InvalidRequest, RequestTimeout
from service.request import MAX_TOP_K, Request
from service.terms import Terms, is_bulk

_DIGITS: Final = 19
"""They hold every number that is allowed anywhere; int() of very many raises an error of its own."""


class Values(Protocol):
    """Names and what they stand for, each once."""

    def get(self, name: str, /) -> str | None:
        """What a name stands for."""


class Said(Protocol):
    """A request's query and headers, as Flask's request has them."""

    @property
    def args(self) -> Values:
        """The query."""

    @property
    def headers(self) -> Values:
        """The headers."""


def read_terms(limit_s: float, said: Said = request) -> Terms:
    """Reads the terms of a request that has just arrived.

    Args:
        limit_s: seconds that the service gives a request; the caller's own can only shorten them.
        said: by default the present one of Flask.

    Raises:
        InvalidRequest: one of them cannot be understood.
    """
    arrived = time.monotonic()
    timeout_s = read_timeout_s(limit_s, said)
    bulk = is_bulk(said.headers.get("X-Request-Priority") or "")  # read in any case: a wrong one is a mistake
    if priority := said.args.get("priority"):
        bulk = is_bulk(priority)
    return Terms(arrived + timeout_s, said.headers.get("X-Request-Id") or "", bulk)


def read_timeout_s(limit_s: float, said: Said = request) -> float:
    """Seconds that a request is given; see `read_terms`."""
    text = said.headers.get("X-Request-Timeout-Ms")
    if text is None:
        return limit_s
    return min(limit_s, whole_number("X-Request-Timeout-Ms", text, low=1, high=10**9) / 1e3)


def read_asked(terms: Terms, said: Said = request) -> Request:
    """What a request for /classify asks, its images still to come.

    Args:
        terms: of the request.
        said: by default the present one of Flask.

    Raises:
        InvalidRequest: a parameter cannot be understood.
    """
    return Request(
        (),
        said.args.get("model") or "",
        _number(said, "version", 0, low=0, high=2**63 - 1),
        _number(said, "top_k", 5, low=1, high=MAX_TOP_K),
        bool(_number(said, "pixels_sha256", 0, low=0, high=1)),
        terms.left_s,
        said.args.get("label") or "",
        terms.request_id,
        activation_map=bool(_number(said, "activation_map", 0, low=0, high=1)),
        bulk=terms.bulk,
    )


def reading(terms: Terms, limit_s: float, said: Said = request) -> gevent.Timeout:
    """A context in which the request's body is read; a client that trickles must not hold us for ever.

    Args:
        terms: of the request.
        limit_s: seconds that the service gives a request.
        said: by default the present one of Flask.

    Raises:
        DeadlineExceeded: on leaving it after the caller's deadline.
        RequestTimeout: on leaving it late, where the caller had no deadline that was sooner.
    """
    return gevent.Timeout(terms.left_s, late_request(read_timeout_s(limit_s, said), limit_s))


def late_request(timeout_s: float, limit_s: float) -> GraftError:
    """What a client is told that has not sent its whole request in time.

    Args:
        timeout_s: its time.
        limit_s: seconds that the service gives a request; less is the caller's own wish.
    """
    late = DeadlineExceeded if timeout_s < limit_s else RequestTimeout
    return late(f"expected the whole request within {timeout_s:.3g} s")


def whole_number(name: str, text: str, *, low: int, high: int) -> int:
    """A number in a query or in a header.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or not low <= int(text) <= high:
        raise InvalidRequest(f"expected {name} to be an integer of {low} to {high}, got {text[:100]!r}")
    return int(text)


def _number(said: Said, name: str, default: int, *, low: int, high: int) -> int:
    text = said.args.get(name)
    return default if text is None else whole_number(name, text, low=low, high=high)
