"""The terms of an HTTP request: query and headers that mean the same on every path that classifies."""

import time
from typing import Final

import gevent
from flask import request

from service.errors import DeadlineExceeded, InvalidRequest, RequestTimeout
from service.terms import Terms, is_bulk

_DIGITS: Final = 19
"""They hold every number that is allowed anywhere; int() of very many raises an error of its own."""


def read_terms(limit_s: float) -> Terms:
    """Reads the terms of the present request, which has just arrived.

    Args:
        limit_s: seconds that the service gives a request; the caller's own can only shorten them.

    Raises:
        InvalidRequest: one of them cannot be understood.
    """
    arrived = time.monotonic()
    text = request.headers.get("X-Request-Timeout-Ms")
    if text is not None:
        limit_s = min(limit_s, whole_number("X-Request-Timeout-Ms", text, low=1, high=10**9) / 1e3)
    priority = request.args.get("priority") or request.headers.get("X-Request-Priority") or ""
    return Terms(arrived + limit_s, request.headers.get("X-Request-Id", ""), is_bulk(priority))


def reading(terms: Terms, limit_s: float) -> gevent.Timeout:
    """A context in which the request's body is read; a client that trickles must not hold us for ever.

    Args:
        terms: of the request.
        limit_s: seconds that the service gives a request.

    Raises:
        DeadlineExceeded: on leaving it after the caller's deadline.
        RequestTimeout: on leaving it late, where the caller had no deadline that was sooner.
    """
    left_s = terms.left_s
    own = request.headers.get("X-Request-Timeout-Ms")
    late = DeadlineExceeded if own is not None and int(own) / 1e3 < limit_s else RequestTimeout
    return gevent.Timeout(left_s, late(f"expected the whole request within {left_s:.3g} s"))


def whole_number(name: str, text: str, *, low: int, high: int) -> int:
    """A number in a query or in a header.

    Raises:
        InvalidRequest: it is none, or out of its range.
    """
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or not low <= int(text) <= high:
        raise InvalidRequest(f"expected {name} to be an integer of {low} to {high}, got {text[:100]!r}")
    return int(text)
