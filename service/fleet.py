"""The engines in the routing table as one front sees them: follows the table and keeps a link to each engine.

What travels over the links is the classifier's business.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.call import Job
from service.errors import GraftError
from service.link import Link
from service.reactor import Cancellable, Reactor
from service.routes import Routes, read_routes
from service.wire import Kind

_LOOK_S: Final = 0.05
_LIFE_S: Final = 0.5
"""Between two looks for the engines' signs of life, which they give every second."""


class Fleet:
    """Connected to every engine that is listed.

    Attributes:
        routes: the table as it was last read.

    Args:
        reactor: this front's event loop.
        routes_path: the table, written by the supervisor.
        on_frame: called with every frame of an engine.
        on_lost: called once when an engine is gone; the link's jobs are what it has not answered.
        on_look: called after every look at the table, with the seconds by which the loop was late for it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        reactor: Reactor,
        routes_path: Path,
        *,
        on_frame: Callable[[Link[Job], Kind, int, bytes], None],
        on_lost: Callable[[Link[Job]], None],
        on_look: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = Routes()
        self._reactor = reactor
        self._path = routes_path
        self._stamp: tuple[int, int] | None = None
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_look = on_look
        self._clock = clock
        self._links: dict[str, Link[Job]] = {}
        self._linked: Routes | None = None  # the table by which there is a link to every engine
        self._next_life = 0.0
        self._next: Cancellable | None = None
        self._due = clock()

    def follow(self) -> None:
        """Looks at the table, now and from now on."""
        now = self._clock()
        late_s, self._due = max(0.0, now - self._due), now + _LOOK_S
        self._next = self._reactor.call_later(_LOOK_S, self.follow)
        self._read()
        if self.routes is not self._linked:
            self._connect()
        if now >= self._next_life:
            self._next_life = now + _LIFE_S
            for link in self._links.values():
                link.look(now)
        self._on_look(late_s)

    def resolve(self, model: str, version: int = 0, label: str = "", request_id: str = "") -> tuple[str, int]:
        """`Routes.resolve` on the table as it is now: what we know may be a moment old, so look before saying no."""
        try:
            return self.routes.resolve(model, version, label, request_id)
        except GraftError:
            self._read()
            return self.routes.resolve(model, version, label, request_id)

    def accepting(self, model: str, version: int) -> list[Link[Job]]:
        """The engines of a version that take images."""
        links = self._links
        return [link for path in self.routes.sockets(model, version) if (link := links.get(path)) and link.accepting]

    @property
    def versions(self) -> list[list[Link[Job]]]:
        """The engines that take images, of each version that has some."""
        models = self.routes.models.items()
        found = [self.accepting(name, number) for name, model in models for number in model.versions]
        return [links for links in found if links]

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight at any engine, of this front or another."""
        return not any(link.jobs or any(link.backlog.in_flight()) for link in self._links.values())

    def retire(self, link: Link[Job]) -> None:
        """Hangs up on an engine that takes nothing more and owes nothing; it ends when all fronts have."""
        if not link.accepting and not link.jobs:
            self._links.pop(link.path, None)
            self._linked = None
            link.close()

    def close(self) -> None:
        """Hangs up on every engine and stops following the table."""
        if self._next:
            self._next.cancel()
        for link in self._links.values():
            link.close()
        self._links.clear()

    def _read(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - twenty times a second: a third of Path.stat
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self.routes = read_routes(self._path)
            self._stamp = stamp

    def _connect(self) -> None:
        models = self.routes.models.values()
        listed = {path for model in models for version in model.versions.values() for path in version.sockets}
        self._linked = self.routes
        for path in listed - self._links.keys():
            try:
                self._links[path] = Link(path, self._reactor, self._on_frame, self._lose)
            except OSError:
                self._linked = None  # it died a moment ago; the supervisor is about to list another
        for path in self._links.keys() - listed:
            link = self._links[path]
            link.accepting = False
            self.retire(link)

    def _lose(self, link: Link[Job]) -> None:
        self._links.pop(link.path, None)
        self._linked = None
        self._on_lost(link)
