"""Many files through one client: read, asked about many at a time, answered in the order of the files.

Holds a bounded number of files at once, however many there are. Errors of single images become predictions; what would
hit every image ends the whole.
"""

import math
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from service.client.base import Ask, Client, Prediction, Refused, Unanswered
from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InternalError,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    Unavailable,
)

LARGEST_FILE_BYTES: Final = 256 << 20
"""Larger files are not even read."""

_REQUEST_BYTES: Final = 8 << 20
_WAIT_S: Final = 1.0
_ROUNDS: Final = 3
_TOO_LARGE: Final = (RequestTooLarge.code, "RESOURCE_EXHAUSTED")  # the latter is gRPC's own, before any of our code
_OF_ONE_IMAGE: Final = (*_TOO_LARGE, InternalError.code)
_OF_TOO_MANY: Final = (*_OF_ONE_IMAGE, InvalidRequest.code)
_PASSING: Final = (Overloaded.code, Unavailable.code, DeadlineExceeded.code)


@dataclass(frozen=True)
class Limits:
    """How much at once.

    Attributes:
        requests: requests in flight.
        images: images in one request; fewer where files are large, or where the service allows fewer.
        patience_s: for how long a service that has answered before may be away, such as for a restart. One that is
            overloaded is not away, and is waited for.
    """

    requests: int = 8
    images: int = 1
    patience_s: float = 0.0


def classify_files(
    client: Client, paths: Iterable[str], ask: Ask, limits: Limits, on_wait: Callable[[str], None]
) -> Iterator[list[Prediction]]:
    """Classifies files.

    Args:
        client: closed when this is ended before the last prediction, so that nobody waits for answers in flight.
        paths: of the files; taken as they are needed.
        ask: of whom, and how.
        limits: how much at once.
        on_wait: called with the reason, by any thread, when it is waited for a service that is away.

    Returns:
        Predictions in the order of the paths, a few at a time. The filename is the path.

    Raises:
        ClientError: what was asked is refused for every image, or nobody answered for longer than the patience.
    """
    asker = _Asker(client, ask, limits.patience_s, on_wait)
    waiting: deque[Future[list[Prediction]]] = deque()
    source = iter(paths)
    with ThreadPoolExecutor(limits.requests, "graft-client") as pool:
        try:
            while chunk := list(islice(source, limits.images)):
                # twice as many as can be in flight, so that one slow answer does not let the others run dry
                if len(waiting) >= 2 * limits.requests:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(asker.classify, chunk))
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            asker.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
            raise


class _Asker:
    """Reads and asks; used by all threads."""

    def __init__(self, client: Client, ask: Ask, patience_s: float, on_wait: Callable[[str], None]) -> None:
        self.stop = threading.Event()
        self._client = client
        self._ask = ask
        self._patience_s = patience_s
        self._on_wait = on_wait
        self._last_answer = -math.inf  # written by every thread; any of the latest will do

    def classify(self, paths: Sequence[str]) -> list[Prediction]:
        """One prediction per path, in order."""
        found: list[Prediction] = []
        images: list[tuple[str, bytes]] = []
        size_bytes = 0
        for path in paths:
            image = _read(path)
            too_much = not isinstance(image, Prediction) and size_bytes + len(image) > _REQUEST_BYTES
            if images and (too_much or isinstance(image, Prediction)):
                found += self._send(images)
                images, size_bytes = [], 0
            if isinstance(image, Prediction):
                found.append(image)
            else:
                images.append((path, image))
                size_bytes += len(image)
        return found + (self._send(images) if images else [])

    def _send(self, images: list[tuple[str, bytes]]) -> list[Prediction]:
        """Asks until every image has its answer or an error that would come again."""
        found = self._send_once(images)
        for _ in range(_ROUNDS):
            again = [index for index, one in enumerate(found) if one.error.partition(":")[0] in _PASSING]
            if not again or self.stop.wait(_WAIT_S):
                break
            for index, one in zip(again, self._send_once([images[index] for index in again]), strict=True):
                found[index] = one
        return found

    def _send_once(self, images: list[tuple[str, bytes]]) -> list[Prediction]:
        while True:
            try:
                found = self._client.ask(images, self._ask)
            except Unanswered as error:
                now = time.monotonic()
                if self._patience_s and error.overloaded:  # not away
                    self._last_answer = now
                if now - self._last_answer > self._patience_s or self.stop.is_set():
                    raise
                self._on_wait(str(error))
                self.stop.wait(_WAIT_S)
            except Refused as error:
                self._last_answer = time.monotonic()
                if len(images) > 1 and error.code in _OF_TOO_MANY:
                    half = len(images) // 2
                    return self._send_once(images[:half]) + self._send_once(images[half:])
                if error.code in _OF_ONE_IMAGE:
                    return [Prediction(images[0][0], error=str(error))]
                raise
            else:
                self._last_answer = time.monotonic()
                return found


def _read(path: str) -> bytes | Prediction:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - once per image: a Path would only cost
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
                return Prediction(path, error="cannot read the file: expected a regular file or a pipe")
            if status.st_size > LARGEST_FILE_BYTES:
                told = f"expected at most {LARGEST_FILE_BYTES} bytes, got {status.st_size}"
                return Prediction(path, error=f"{ImageTooLarge.code}: {told}")
            return file.readall()
    except OSError as error:
        return Prediction(path, error=f"cannot read the file: {error.strerror}")
    except ValueError as error:  # no file can be called so
        return Prediction(path, error=f"cannot read the file: {error}")
