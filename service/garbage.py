"""How a process collects garbage once it is at work."""

import gc
from typing import Final

_YOUNG: Final = 5_000
"""Objects more than at the last look before the young ones are walked. At Python's own 700, those of the requests in
flight were walked again and again: a twentieth of a busy front's time. Much more would let cycles of large requests,
should any be left, wait for long."""


def settle() -> None:
    """What is loaded by now stays: it is never walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
