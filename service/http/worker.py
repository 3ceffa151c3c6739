"""Gunicorn's gevent worker, with a shortcut for plain requests (service/http/plain.py), that outlives its master."""

import logging
import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from service.ports import HANDSHAKE_S, take_no_more

_PEEK_BYTES: Final = 1 << 13
"""As much of a request as is looked at; a longer head is not plain."""
_PATIENCE_S: Final = 30.0
"""Of a front without a master. Then nobody is about to start another: the supervisor is gone, too."""

_UNREAD_MS: Final = 30_000
"""For so long a client may leave its answer unread before it is hung up on."""
_NOTIFY_EVERY_S: Final = 1.0
_DRAINED_EVERY_S: Final = 0.05

_log = logging.getLogger("graft.http")


class FrontWorker(GeventWorker):  # type: ignore[misc]  # gunicorn is untyped
    """Looks at the start of each request on a connection, and leaves the connection to gunicorn at the first odd one.

    Looking takes nothing away, so gunicorn sees that request whole.

    When its master is killed it goes on until the fronts of the next one take connections. Gunicorn's own worker would
    end at once, with all requests that it has accepted, and until then nobody would listen. `app.listening` is the file
    that a master leaves when it does.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - gunicorn's own
        super().__init__(*arguments, **options)
        self._master = self._stamp()
        self._orphan_since = 0.0

    def run(self) -> None:
        """Called by gunicorn: serves until it is told to end, and then until everybody is answered.

        As GeventWorker does, but for what it does about connections that nobody has accepted yet when it stops
        listening: closing the listener would reset them.
        """
        servers, connections = [], Pool(self.worker_connections)
        for listener in self.sockets:
            address = _Address(listener.getsockname())
            server = StreamServer(listener, handle=partial(self.handle, address), spawn=connections)
            if self.cfg.workers > 1:
                server.max_accept = 1  # let the other fronts have some
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            gevent.sleep(_NOTIFY_EVERY_S)
        for server in servers:
            server.stop_accepting()
            _accept_all(server)
            server.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        while len(connections):
            if time.monotonic() > end:
                _log.warning("some requests were not answered within the time for draining")
                return
            self.notify()
            gevent.sleep(_DRAINED_EVERY_S)

    def notify(self) -> None:
        """Called by gunicorn every second."""
        AsyncWorker.notify(self)  # without GeventWorker's own look at the master
        if self.ppid == os.getppid():
            return
        now = time.monotonic()
        if not self._orphan_since:
            self._orphan_since = now
            _log.error("the master of the HTTP fronts was killed; this one goes on until there is another")
        if self._stamp() not in {None, self._master} or now - self._orphan_since > _PATIENCE_S:
            self.alive = False  # answers what it has accepted, and ends

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:  # noqa: ANN401 - gunicorn's own
        """Called by gunicorn for every connection."""
        client.setblocking(True)
        # one that does not read what it has asked for would keep its connection for ever
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
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

    def _stamp(self) -> int | None:
        """Of the file that the latest master has left; None while one starts."""
        try:
            stamp: int = self.app.listening.stat().st_mtime_ns
        except OSError:
            return None
        return stamp


@dataclass(frozen=True)
class _Address:
    """What gunicorn asks of a listener, also when that is closed and its connections are not: its name."""

    name: Any

    def getsockname(self) -> Any:  # noqa: ANN401 - a pair, or a path
        return self.name


def _accept_all(server: StreamServer) -> None:
    """Takes the connections that wait at the listener of a server that has stopped accepting, and those being made."""
    take_no_more(server.socket)
    end = time.monotonic() + HANDSHAKE_S
    while True:
        while accepted := server.do_read():
            server.do_handle(*accepted)
        if time.monotonic() > end:
            return
        gevent.sleep(HANDSHAKE_S / 10)
