"""Gunicorn's gevent worker, with a shortcut for plain requests (plain.py), that outlives its master."""

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import monkey
from gevent.pool import Group
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket  # noqa: N812 - it is a class
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from service.ports import HANDSHAKE_S, take_no_more

if TYPE_CHECKING:  # gunicorn's master, which only watches, stays small
    from service.http.plain import Connection

_PATIENCE_S: Final = 30.0
"""Of a front without a master. Then nobody is about to start another: the supervisor is gone, too."""

_UNREAD_MS: Final = 30_000
"""For so long a client may leave its answer unread before it is hung up on."""
_LOOK_EVERY_S: Final = 1.0
_DRAINED_EVERY_S: Final = 0.05

_Socket: Final = monkey.get_original("socket", "socket")
_log = logging.getLogger("graft.http")


class FrontWorker(GeventWorker):  # type: ignore[misc]  # gunicorn is untyped
    """Answers plain requests itself, and leaves a connection to gunicorn at the first odd one.

    When its master is killed it goes on until the fronts of the next one take connections. Gunicorn's own worker would
    end at once, with all requests that it has accepted, and until then nobody would listen. `app.listening` is the file
    that a master leaves when it does.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - gunicorn's own
        super().__init__(*arguments, **options)
        self._master = self._stamp()
        self._orphan_since = 0.0
        self._servers: list[_Server] = []
        self._plain: set[Connection] = set()
        self._odd = Group()

    def run(self) -> None:
        """Called by gunicorn: serves until it is told to end, and then until everybody is answered.

        As GeventWorker does, but for what it does about connections that nobody has accepted yet when it stops
        listening: closing the listener would reset them.
        """
        for listener in self.sockets:
            server = _Server(listener, partial(self._begin, _Address(listener.getsockname())), self._is_full)
            if self.cfg.workers > 1:
                server.max_accept = 1  # let the other fronts have some
            server.start()
            self._servers.append(server)
        while self.alive:
            self._look()
            gevent.sleep(_LOOK_EVERY_S)
        for server in self._servers:
            server.stop_accepting()
            _accept_all(server)
            server.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        while self._plain or self._odd:
            if time.monotonic() > end:
                _log.warning("some requests were not answered within the time for draining")
                return
            self._look()
            gevent.sleep(_DRAINED_EVERY_S)

    def _look(self) -> None:
        self.notify()
        since = time.monotonic() - self.cfg.keepalive
        for connection in list(self._plain):
            connection.hang_up_if_idle(since)

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

    def _begin(self, address: "_Address", client: GeventSocket, peer: Any) -> None:  # noqa: ANN401 - a pair, or a path
        """Called on the hub with every connection."""
        with suppress(OSError):  # it has gone again, as the connection will say
            # one that does not read what it has asked for would keep its connection for ever
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        own = _Socket(client.family, client.type, client.proto, client.detach())
        own.setblocking(False)

        def end(connection: "Connection", odd: socket.socket | None) -> None:
            self._plain.discard(connection)
            if odd is not None:
                # behind the group's own link, so that it counts one less by then
                self._odd.spawn(self._leave_to_gunicorn, address, odd, peer).rawlink(lambda _: self._accept_more())
            else:
                self._accept_more()

        self._plain.add(self.app.plain.connect(own, end, lambda: not self.alive))

    def _leave_to_gunicorn(self, address: "_Address", own: socket.socket, peer: Any) -> None:  # noqa: ANN401 - see above
        client = GeventSocket(own.family, own.type, own.proto, own.detach())
        client.setblocking(True)
        self.handle(address, client, peer)

    def _is_full(self) -> bool:
        most: int = self.worker_connections
        return len(self._plain) + len(self._odd) >= most

    def _accept_more(self) -> None:
        if self.alive:
            for server in self._servers:
                server.start_accepting()

    def _stamp(self) -> int | None:
        """Of the file that the latest master has left; None while one starts."""
        try:
            stamp: int = self.app.listening.stat().st_mtime_ns
        except OSError:
            return None
        return stamp


class _Server(StreamServer):
    """Takes connections, on the hub, while there are not too many."""

    def __init__(self, listener: GeventSocket, begin: Callable[..., None], is_full: Callable[[], bool]) -> None:
        super().__init__(listener, handle=begin, spawn=None)
        self._is_full = is_full

    def full(self) -> bool:
        """Called by gevent before it accepts."""
        return self._is_full()


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
        with suppress(OSError):  # no descriptor is left, or somebody has gone again
            while accepted := server.do_read():
                server.do_handle(*accepted)
        if time.monotonic() > end:
            return
        gevent.sleep(HANDSHAKE_S / 10)
