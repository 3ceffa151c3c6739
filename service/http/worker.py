"""Gunicorn's gevent worker, with a shortcut for plain requests (service/http/plain.py)."""

import socket
from typing import Any, Final

import gevent
from gunicorn.workers.ggevent import GeventWorker

_PEEK_BYTES: Final = 1 << 13
"""As much of a request as is looked at; a longer head is not plain."""


class FrontWorker(GeventWorker):  # type: ignore[misc]  # gunicorn is untyped
    """Looks at the start of each request on a connection, and leaves the connection to gunicorn at the first odd one.

    Looking takes nothing away, so gunicorn sees that request whole.
    """

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:  # noqa: ANN401 - gunicorn's own
        """Called by gunicorn for every connection."""
        client.setblocking(True)
        try:
            more = True
            while more is True:
                start = self._peek(client)
                more = self.app.plain.answer_next(client, start, last=not self.alive) if start else False
        except OSError:  # the client has gone
            more = False
        if more is None:
            super().handle(listener, client, addr)
        else:
            client.close()

    def _peek(self, client: socket.socket) -> bytes:
        """The start of the next request; empty when there is none within the time that a connection is kept for one."""
        try:
            with gevent.Timeout(self.cfg.keepalive):
                return client.recv(_PEEK_BYTES, socket.MSG_PEEK)
        except gevent.Timeout:
            return b""
