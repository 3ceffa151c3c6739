"""Answers kept for images that come again: bounded by bytes, the least recently used go first.

Keys name everything that an answer depends on: the image's bytes (as a digest), model, version, and what was asked. The
decode has no place in them: a version is only ever served with the decode that its manifest names (service/image.py).
"""

from collections import OrderedDict
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

_ENTRY_BYTES: Final = 400
"""What an entry takes beside its answer, about: the key with its digest, the places in the dictionary."""


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What an answer depends on.

    Attributes:
        model: its name.
        version: its number.
        top_k: labels per image.
        flags: what else was asked, in the wire's bits.
        sha256: of the image's bytes.
    """

    model: str
    version: int
    top_k: int
    flags: int
    sha256: bytes


class AnswerCache:
    """Serialized results by key.

    Args:
        max_bytes: what keys and answers may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[AnswerKey, bytes] = OrderedDict()

    def get(self, key: AnswerKey) -> bytes | None:
        """The answer, if it is known."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: AnswerKey, answer: bytes) -> None:
        """Keeps an answer; others go where there is no room for it."""
        self._drop(key)
        self._answers[key] = answer
        self._bytes += _ENTRY_BYTES + len(answer)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._answers)))

    def keep(self, versions: Set[tuple[str, int]]) -> None:
        """Forgets the answers of every version but these (model, number)."""
        for key in [key for key in self._answers if (key.model, key.version) not in versions]:
            self._drop(key)

    def _drop(self, key: AnswerKey) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._bytes -= _ENTRY_BYTES + len(answer)
