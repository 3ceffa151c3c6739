"""What both transports share: the question, the answer, the errors, and trying again."""

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self


class ClientError(Exception):
    """No answer; one of the two below."""


class Refused(ClientError):
    """The service refused the whole request and would refuse it again.

    Attributes:
        code: a word from the error table in docs/operations.md; empty when it is not known.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Unanswered(ClientError):
    """Nobody there, not ready, overloaded or too slow: worth trying again later.

    Attributes:
        retry_after_s: what the service asked to wait; 0 when it said nothing.
        overloaded: the service is there and ready, and has too much to do.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0, *, overloaded: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.overloaded = overloaded


@dataclass(frozen=True)
class Ask:
    """Who shall answer, and how.

    Attributes:
        model: name; empty for the only one.
        version: number; 0 for the live one.
        label: of a version, such as "canary", instead of a number.
        top_k: labels per image.
        bulk: let everybody else go first.
        activation_map: also ask where in each image the model saw its label.
    """

    model: str = ""
    version: int = 0
    label: str = ""
    top_k: int = 5
    bulk: bool = False
    activation_map: bool = False


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """Where in an image the model saw its label.

    Attributes:
        values: rows of numbers: 1 where most spoke for the label, 0 where nothing did.
        left: where the part of the upright picture begins that the map covers, pixels.
        top: likewise.
        width: of that part, pixels.
        height: likewise.
    """

    values: Sequence[Sequence[float]]
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the service says of one image.

    Attributes:
        filename: as given.
        label: the best label; empty when the image failed.
        score: of the best label, 0 to 1.
        unknown: the score is below what 99 % of right answers reached: less sure than usual.
        top: (label, score), best first.
        model: who answered.
        version: of the model.
        error: "CODE: detail" when this image failed; else empty.
        activation_map: where asked for.
    """

    filename: str
    label: str = ""
    score: float = 0.0
    unknown: bool = False
    top: Sequence[tuple[str, float]] = ()
    model: str = ""
    version: int = 0
    error: str = ""
    activation_map: ActivationMap | None = None


@dataclass(frozen=True)
class Retry:
    """How often and when to try again after Unanswered.

    Waits double, each shortened at random by up to a half, so that clients that were refused together do not come back
    together. What the service asked for (Retry-After) is waited at least.

    Attributes:
        tries: the first included.
        first_wait_s: before the second try.
        longest_wait_s: what doubling ends at.
    """

    tries: int = 4
    first_wait_s: float = 0.25
    longest_wait_s: float = 10.0

    def wait_s(self, failed: int, asked_s: float) -> float:
        """Seconds to wait after the `failed`-th try (from 1), when the service asked for `asked_s`."""
        doubled = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failed - 1, 30))
        return max(doubled * random.uniform(0.5, 1.0), asked_s * random.uniform(1.0, 1.25))


class Client(ABC):
    """A connection to a service. Any number of threads may use one.

    Args:
        timeout_s: seconds until a call of `classify` is given up, all tries together; the service is told what is left.
        retry: how to try again.
    """

    def __init__(self, timeout_s: float, retry: Retry) -> None:
        self._timeout_s = timeout_s
        self._retry = retry
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classify(
        self,
        images: Sequence[tuple[str, bytes]],
        *,
        model: str = "",
        version: int = 0,
        label: str = "",
        top_k: int = 5,
        bulk: bool = False,
        activation_map: bool = False,
    ) -> list[Prediction]:
        """Classifies images in one request.

        Args:
            images: (filename, whole file). The names stay here.
            model: name; empty for the only one.
            version: number; 0 for the live one.
            label: of a version, such as "canary", instead of a number.
            top_k: labels per image.
            bulk: let everybody else go first.
            activation_map: also ask where in each image the model saw its label: a second inference for each.

        Returns:
            One prediction per image, in order; of an image that failed, its error.

        Raises:
            Refused: the whole request was refused.
            Unanswered: no answer within the tries and the time.
        """
        return self.ask(images, Ask(model, version, label, top_k, bulk, activation_map))

    def ask(self, images: Sequence[tuple[str, bytes]], ask: Ask) -> list[Prediction]:
        """`classify`, for those who ask the same of many images."""
        deadline = time.monotonic() + self._timeout_s
        failed = 0
        while True:
            try:
                return self._try(images, ask, max(0.001, deadline - time.monotonic()))
            except Unanswered as error:
                failed += 1
                wait_s = self._retry.wait_s(failed, error.retry_after_s)
                if failed == self._retry.tries or time.monotonic() + wait_s >= deadline or self._pause(wait_s):
                    raise

    def close(self) -> None:
        """Hangs up. Calls that are under way fail with Unanswered."""
        self._closed.set()
        self._hang_up()

    def _pause(self, seconds: float) -> bool:
        """Waits; True when the client was closed meanwhile."""
        return self._closed.wait(seconds)

    @abstractmethod
    def _hang_up(self) -> None:
        """Ends the connections, also those that threads wait for."""

    @abstractmethod
    def _try(self, images: Sequence[tuple[str, bytes]], ask: Ask, timeout_s: float) -> list[Prediction]:
        """One try.

        Raises:
            Refused, Unanswered: see `classify`.
        """
