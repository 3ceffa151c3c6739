"""What a caller says of a request beside what is in it, in every protocol: by when, how urgent, under which id."""

import math
import time
from dataclasses import dataclass
from typing import Final

from service.errors import InvalidRequest

_PRIORITIES: Final = ("interactive", "bulk")
LEAST_S: Final = 0.001
"""A request's last moment: so that it is the deadline that ends a late one."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one request.

    Attributes:
        deadline: when its answer stops being of use, monotonic seconds.
        request_id: as the caller calls it; empty for nothing.
        bulk: everybody who is not goes first.
    """

    deadline: float = math.inf
    request_id: str = ""
    bulk: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; a last moment at least."""
        return max(LEAST_S, self.deadline - time.monotonic())


def is_bulk(priority: str) -> bool:
    """Whether a priority, in the word that protocols share, is that of bulk work; empty is interactive.

    Raises:
        InvalidRequest: it is no priority.
    """
    if priority and priority not in _PRIORITIES:
        raise InvalidRequest(f"expected priority to be {' or '.join(_PRIORITIES)}, got {priority[:100]!r}")
    return priority == "bulk"
