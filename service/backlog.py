"""What all fronts together have in flight at one engine, and what it costs there.

Several fronts share an engine, and each must know at once, without asking, whether it has room: so the numbers are in a
file beside the engine's socket that the engine and all its fronts map into memory. Everybody writes only numbers of its
own, eight bytes each: the engine what an image costs, every front how many images it has there. Nothing is locked; a
number that is a moment old makes an estimate a little worse, no more.

    0           seconds per image while the engine is busy; 0 until it has learned
    1           seconds of one whole batch
    2           slots in use or used before
    3 + 2 i     slot i: interactive images of one front; behind it, its bulk images

An engine gives each connection a slot of its own in its first frame (SLOT), and clears it when the connection ends, so
a front that dies leaves nothing behind.
"""

import mmap
import os
from pathlib import Path
from typing import Final

SUFFIX: Final = ".backlog"
_NUMBER_BYTES: Final = 8
_FIRST: Final = 3
_SLOTS: Final = 510
_BEHIND: Final = 2.0**-20
"""Weight of bulk for an interactive image, which goes before it: of two engines alike, the one with less bulk."""
_IMAGE_S, _BATCH_S, _USED = 0, 1, 2


class Backlog:
    """The numbers of one engine.

    Args:
        socket_path: the engine's socket.
        create: True in the engine, before it listens; False in fronts.

    Raises:
        OSError: there is no such engine any more.
    """

    def __init__(self, socket_path: str, *, create: bool = False) -> None:
        descriptor = os.open(f"{socket_path}{SUFFIX}", os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        size = _NUMBER_BYTES * (_FIRST + 2 * _SLOTS)
        try:
            if create:
                os.posix_fallocate(descriptor, 0, size)  # no hole: writing into one on a full disk is SIGBUS
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._numbers = memoryview(self._map).cast("d")
        self._slot = 0
        self._own = [0, 0]
        self._free: list[int] = []

    def close(self) -> None:
        """Lets go of the memory; the file stays until the engine's process is cleared away."""
        self._slot = 0
        self._numbers.release()
        self._map.close()

    # -- engine

    def publish(self, image_s: float, batch_s: float) -> None:
        """Says what an image costs in a busy engine, and a whole batch."""
        self._numbers[_IMAGE_S] = image_s
        self._numbers[_BATCH_S] = batch_s

    def claim(self) -> int:
        """A slot for a new connection; 0 when there is none left, and its images are then known to itself alone."""
        if self._free:
            return self._free.pop()
        used = int(self._numbers[_USED])
        if used == _SLOTS:
            return 0
        self._numbers[_USED] = used + 1
        return _FIRST + 2 * used

    def release(self, slot: int) -> None:
        """The connection has ended, and with it everything that it had in flight."""
        if slot:
            self._numbers[slot] = self._numbers[slot + 1] = 0.0
            self._free.append(slot)

    # -- front

    def use(self, slot: int) -> None:
        """Counts in this slot from now on."""
        self._slot = slot
        if slot:
            self._numbers[slot], self._numbers[slot + 1] = self._own

    def add(self, images: int, *, bulk: bool) -> None:
        """Counts images that were sent to the engine, or with a minus that came back."""
        self._own[bulk] += images
        if self._slot:
            self._numbers[self._slot + bulk] = self._own[bulk]

    @property
    def image_s(self) -> float:
        """Seconds per image while the engine is busy; 0 until it has learned."""
        return self._numbers[_IMAGE_S]

    @property
    def batch_s(self) -> float:
        """Seconds of one whole batch; 0 until the engine has learned."""
        return self._numbers[_BATCH_S]

    def in_flight(self) -> tuple[float, float]:
        """Interactive and bulk images that all fronts have there."""
        numbers, end = self._numbers, _FIRST + 2 * int(self._numbers[_USED])
        interactive, bulk = sum(numbers[_FIRST:end:2]), sum(numbers[_FIRST + 1 : end : 2])
        if not self._slot:
            return interactive + self._own[0], bulk + self._own[1]
        return interactive, bulk

    def work(self, *, bulk: bool) -> float:
        """How busy the engine is for a new image of this priority, to be compared with other engines."""
        interactive, others = self.in_flight()
        return interactive + others if bulk else interactive + _BEHIND * others


def remove(socket_path: Path) -> None:
    """Removes the file of an engine that has ended."""
    socket_path.with_name(socket_path.name + SUFFIX).unlink(missing_ok=True)
