"""How a process collects garbage once it is at work."""

import gc
from typing import Final

_YOUNG: Final = 20_000
"""Objects more than at the last look before the young ones are walked. Requests leave no cycles behind, but at Python's
own 700 those in flight were walked again and again: a twentieth of a busy front's time."""


def settle() -> None:
    """What is loaded by now stays: it is never walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
