"""Clients that hang up while their request waits.

Nobody reads from a connection while its answer is being made, so its end would be noticed only when that is written:
work would be done for people who have gone. One poll over all connections every few milliseconds costs less than
watching each of them.
"""

import select
from collections.abc import Callable
from typing import Final

from gevent import monkey

from service.reactor import Reactor

CLIENT_GONE: Final = "499"
"""The status of a request whose client hung up. Only metrics and log see it; it is what nginx says in this case."""

_LOOK_EVERY_S: Final = 0.02


class ClientGone(Exception):
    """The client hung up before it was answered."""


class Disconnects:
    """Watches connections whose requests wait.

    Args:
        reactor: this front's event loop.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._poll: select.poll = monkey.get_original("select", "poll")()  # gevent's would make others wait
        self._watched: dict[int, Callable[[], None]] = {}
        self._looking = False

    def watch(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Calls `gone` once when the client of this connection has hung up, until `forget`."""
        self._watched[descriptor] = gone
        # RDHUP comes with its last word already, before our answer is refused; nginx, too, takes that for an end
        self._poll.register(descriptor, select.POLLRDHUP)
        if not self._looking:
            self._looking = True
            self._reactor.call_later(_LOOK_EVERY_S, self._look)

    def forget(self, descriptor: int) -> None:
        """Watches it no longer."""
        if self._watched.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def _look(self) -> None:
        for descriptor, _ in self._poll.poll(0):
            gone = self._watched[descriptor]
            self.forget(descriptor)
            gone()
        self._looking = bool(self._watched)
        if self._looking:
            self._reactor.call_later(_LOOK_EVERY_S, self._look)
